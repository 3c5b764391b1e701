"""Tars of WebDataset samples, local or on S3, read by our own walk. No torch.

webdataset's reader drops and mislabels in silence; here every member is accounted for, samples are joined by their key
within a tar, and what is not certain is set aside with its reason.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import StageError, UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import Item, Listing, some
from vitpipe.stages.ingest.reading import REMOTE_READS
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing, Labelled, labels_apart
from vitpipe.stages.ingest.sources.folder_walk import is_litter
from vitpipe.stages.ingest.sources.kept_members import Kept, kept_places
from vitpipe.stages.ingest.sources.member_labels import MemberLabels, member_labels
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.shard_lists import other_lists
from vitpipe.stages.ingest.sources.tar_reading import DAMAGE_TOLD, TarMembers, damage_found
from vitpipe.stages.ingest.sources.tar_walk import Damage, Member, packed_as, walk
from vitpipe.stages.ingest.sources.vocabulary import Vocabulary, agreed, joined
from vitpipe.stages.ingest.sources.window import Window, refuse_pointer

MAX_LABEL_BYTES = 1_000_000
NO_LABEL = "no label"
_KEY_AND_SUFFIX = re.compile(r"((?:.*/)?(?!__)[^./]+)\.([^/]+)", re.DOTALL)
"""As webdataset has it: up to the first dot of the base name. Names that begin with a dot or `__` are no samples."""


@dataclass(frozen=True)
class TarSamples(TarMembers):
    """Satisfies `opened.Source`. An item's place is (file, byte)."""

    image: str
    label: str
    label_field: str | None
    """As in `webdataset.WebdatasetSource`."""
    labelled: bool = True
    """Whether samples have classes."""
    keep: tuple[str, ...] = ()
    """Extensions of the members that pass through."""

    def known_classes(self) -> Classes | None:
        """Those of the config; what else a tar calls its classes stands in its samples."""
        if not self.labelled:
            return Classes.of(())
        lists = other_lists({part.folder for part in self.files})
        said = [Vocabulary(part.name, lists[part.folder]) for part in self.files] if lists else []
        found = agreed(said, self.fixed)[0] if said else self.fixed
        return found if self.fixed or all(one.names for one in said) else None  # tars without a list may have more

    def list_file(self, file: SourceFile) -> FileListing:
        """All samples of one tar. UsageError for a packed one."""
        window = Window(file)
        refuse_pointer(window, file.uri)
        packing = packed_as(window)
        if packing:
            raise UsageError(f"read {file.uri}", f"it is packed with {packing}", "unpack it to a plain .tar first")
        samples: dict[str, _Sample] = {}
        damage: list[Damage] = []
        aside = 0
        for one in walk(window):
            if isinstance(one, Damage):
                damage.append(one)
            elif (found := _KEY_AND_SUFFIX.fullmatch(one.name)) and not any(map(is_litter, one.name.split("/")[:-1])):
                samples.setdefault(found[1], _Sample([], [])).take(one, found[2].lower(), self._wanted, window)
            else:
                aside += 1
        for sample in samples.values():
            sample.read_label(self._wanted, self.label_field)
        numbers = any(isinstance(label, int) for sample in samples.values() for label in sample.said.labels)
        images = [image for key, sample in samples.items() for image in self._images(file, key, sample, numbers)]
        notes = (f"{file.name}: {aside} members without a key and an extension were left aside",) if aside else ()
        findings = (damage_found(file, damage, sum(not image.fault for image in images)),) if damage else ()
        several = any(sample.several for sample in samples.values())
        return FileListing(*labels_apart(images), several, findings, notes, file.name)

    def joined(self, parts: Sequence[FileListing]) -> Listing:
        """One listing; a damaged tar weighs as many images as it is short of what is usual here."""
        whole = [len(part.images) for part in parts if not part.findings]
        usual = median_low(whole) if whole else 0
        lists = other_lists({part.folder for part in self.files}) if self.labelled else {}
        if lists:
            parts = [replace(part, names=lists[file.folder]) for part, file in zip(parts, self.files, strict=True)]
        listing = joined((weighed(part, usual) for part in parts), self.fixed)
        without = [item.fault for item in listing.items if item.fault.startswith(NO_LABEL)]
        if len(without) == len(listing.items) > 0:
            do = "name the label's member with `label`; or set `labels: none`, for masked patches, which look at none"
            found = f"no sample has a label, the first: {without[0]}"
            raise UsageError(f"ingest the tars {some(self.patterns)}", found, do)
        if listing.multi_label and "json" in self.keep:
            found = "images have several classes, which shards have in a json member of their own"
            raise UsageError("keep the json member of each sample", found, "leave json out of `keep`")
        if not listing.items:
            why = "".join(f"; {one.name}: {one.reason}" for one in listing.findings[:DAMAGE_TOLD])
            asked = f"ingest the tars {some(self.patterns)}"
            raise UsageError(asked, f"{len(parts)} files without a sample{why}", "check `urls`")
        return listing

    @property
    def _wanted(self) -> tuple[str, ...]:
        return tuple(self.label.lower().split(";")) if self.labelled else ()

    def _images(self, part: SourceFile, key: str, sample: "_Sample", numbers: bool) -> Iterator[Labelled]:
        """The sample's image; of a key that is used twice all its images, set aside.

        Where classes are `numbers` in this tar, a name in the place of one is a mistake.
        """
        forms = dict.fromkeys(self.image.lower().split(";"))
        images = [one for form in forms for suffix, one in sample.members if suffix == form]
        name = f"{part.name}#{key}"
        counts = Counter(suffix for suffix, _ in sample.members)
        twice = any(counts[suffix] > 1 for suffix in (*forms, *self._wanted, *self.keep))
        has = ", ".join(sorted(counts))
        if twice:
            fault = f"the key {key!r} is used more than once in this tar ({has}): which label is whose is not certain"
            for one in images or [sample.members[0][1]]:
                yield Labelled(f"{name}@{one.offset}", (), one.size, (part.number, one.offset), fault)
        elif not images:
            yield Labelled(name, (), fault=f"no image: it has {has}, none of {self.image}")
        else:
            image = images[0]
            said, fault = sample.said, image.fault
            if self.labelled and not (said.labels or said.fault):
                fault = fault or f"{NO_LABEL}: it has {has}, none of {self.label}"
            elif said.is_word and numbers:
                said = MemberLabels(fault=f"its .cls has the label {said.labels[0]!r}, which is no number of a class")
            sample.several = said.several
            place = (part.number, image.offset, *self._kept_places(sample))
            yield Labelled(name, said.labels, image.size, place, fault or said.fault)

    def _kept_places(self, sample: "_Sample") -> Iterator[int]:
        """Place and length of each member that passes through; 0 and 0 where a sample lacks it."""
        there = {suffix: one for suffix, one in sample.members if not one.fault}
        for name in self.keep:
            one = there.get(name)
            yield from (one.offset, one.size) if one else (0, 0)

    def kept(self, items: Sequence[Item]) -> Iterator[Kept]:
        """The other members of each image, of a server several at once."""
        return answers(self._kept_of, items, REMOTE_READS)

    def _kept_of(self, item: Item) -> Kept:
        """Members of one image; StageError for a tar that became shorter."""
        try:
            places = kept_places(item, self.keep)
            return tuple((name, self.read_part(item.place[0], at, size)) for name, at, size in places)
        except BadImage as error:
            do = "run again when the source is still"
            raise StageError(f"read what stands beside {item.name!r}", str(error), do) from error


@dataclass
class _Sample:
    """The members of one key, and the bytes of those that are labels."""

    members: list[tuple[str, Member]]
    labels: list[tuple[str, bytes]]
    said: MemberLabels = field(default_factory=MemberLabels)
    several: bool = False

    def read_label(self, wanted: Sequence[str], field: str | None) -> None:
        """Of several label members the first that is wanted counts."""
        labels = [(suffix, data) for one in wanted for suffix, data in self.labels if suffix == one]
        if labels:
            self.said = member_labels(*labels[0], field)

    def take(self, member: Member, suffix: str, wanted: Sequence[str], window: Window) -> None:
        self.members.append((suffix, member))
        if suffix in wanted and not member.fault:
            self.labels.append((suffix, window.read(member.offset, min(member.size, MAX_LABEL_BYTES))))


def weighed(part: FileListing, usual: int) -> FileListing:
    """With what its damage may have cost: what it is short of, or of a cut one without others to compare, its half."""
    if not part.findings:
        return part
    (finding,) = part.findings
    here = len(part.images)
    if usual > here:
        reason, images = f"{usual - here} fewer than is usual in this source", usual - here
    elif finding.open_end and not usual:
        reason, images = "no whole tar tells how many are missing: as many again are reckoned with", here
    else:
        return part
    told = replace(finding, reason=f"{finding.reason}, {reason}", images=max(finding.images, images))
    return replace(part, findings=(told,))
