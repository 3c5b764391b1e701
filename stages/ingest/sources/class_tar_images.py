"""Images in tars of one class each, or in trees of class folders in tars; local or on S3. No torch.

The same images, names, classes and splits as the folder has that they were packed from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.listing import FileDamage, Item, Items, Listing, some
from vitpipe.stages.ingest.sources.class_folders import ClassFolder, class_folders, of_one_split, split_notes
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing
from vitpipe.stages.ingest.sources.folder_walk import LeftAside
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.tar_contents import (
    SUFFIXES,
    clean_name,
    is_image,
    refuse_packed,
    without_suffix,
)
from vitpipe.stages.ingest.sources.tar_reading import TarMembers, damage_found
from vitpipe.stages.ingest.sources.tar_walk import Damage, Member, walk
from vitpipe.stages.ingest.sources.vocabulary import odd_names
from vitpipe.stages.ingest.sources.window import Window

NOTES_TOLD = 3


@dataclass(frozen=True)
class ClassTars(TarMembers):
    """Satisfies `opened.Source`. `files` are the tars of one class each, or those that hold trees."""

    given: Sequence[SourceFile]
    """The files as they were found, which may hold others."""
    in_tree: bool = False
    """Whether the classes are the folders in the tars."""
    by_split: bool = False
    official: bool = False
    """Whether the splits must be those of the processed release."""
    labelled: bool = True

    def inventory(self, listing: Listing) -> Inventory:
        """The files as they were found."""
        return Inventory.of_files(self.given)

    def known_classes(self) -> Classes | None:
        """Those of the config, or the names of the tars; None where folders in them say it."""
        if not self.labelled:
            return Classes.of(())
        if self.fixed or self.in_tree:
            return self.fixed
        return Classes.of(sorted({without_suffix(file.name.rpartition("/")[2]) for file in self.files}))

    def list_file(self, file: SourceFile) -> FileListing:
        """All images of one tar; their labels are folders. UsageError for a packed tar, and for a tar of tars."""
        window, folder = Window(file), self.folder_of(file)
        refuse_packed(file, window)
        damage, others, inner, aside = list[Damage](), 0, "", LeftAside()
        found: dict[str, tuple[str, Member]] = {}
        replaced: list[tuple[str, str, Member]] = []
        for one in walk(window):
            if isinstance(one, Damage):
                damage.append(one)
                continue
            path = clean_name(one.name)
            if any(map(aside.takes, path.split("/"))):
                continue
            if not is_image(path):
                others, inner = others + 1, inner or (path if path.lower().endswith(SUFFIXES) else "")
                continue
            of, name = self.place(folder, path)
            if name in found:
                replaced.append((name, *found[name]))
            found[name] = of, one
        if inner:
            do = "name such tars of tars alone in `urls`, without those of one class"
            raise UsageError(f"read {file.uri} as a tar of one class", f"it holds the tar {inner}", do)
        images, labels = _listed(file, found, replaced)
        notes = [f"{file.name}: {others} members that are no images by their suffix were left aside"] if others else []
        notes += [f"{file.name}: {note}" for note in aside.notes()]
        findings = (_weighed(damage_found(file, damage, len(found)), len(found)),) if damage else ()
        return FileListing(images, labels, findings=findings, notes=tuple(notes), file=file.name)

    def joined(self, parts: Sequence[FileListing]) -> Listing:
        """One listing, as that of a folder. UsageError for no image, and for folders that cannot be meant so."""
        asked = f"ingest the tars {some(self.patterns)}"
        findings = tuple(sorted((one for part in parts for one in part.findings), key=lambda one: one.name))
        if not any(len(part.images) for part in parts):
            why = "".join(f"; {one.name}: {one.reason}" for one in findings[:NOTES_TOLD])
            raise UsageError(asked, f"{len(parts)} tars without an image{why}", "check `urls`")
        notes = (*_few([note for part in parts for note in part.notes]), *_empty(parts))
        if not self.labelled and not self.by_split:  # any folders will do
            images = Items(item._replace(labels=()) for part in parts for item in part.images)
            return Listing(self._by_name(images), (), notes=notes, findings=findings)
        folders = class_folders(self._distinct(parts, asked), self.by_split, self.official, asked)
        classes = self.fixed or Classes.of(sorted({one.name for one in folders.values()}))
        images = Items(item for part in parts for item in self._items(part, folders, classes))
        names = classes.names if self.labelled else ()
        notes = (*notes, *odd_names(names))
        if self.by_split:
            pairs = {(one.below.split("/")[0], one.name) for one in folders.values()}
            notes = (*notes, *split_notes(folders), *(of_one_split(pairs) if self.labelled else ()))
        return Listing(self._by_name(images), names, notes=notes, findings=findings)

    def _by_name(self, images: Items) -> Items:
        """Sorted; trees in several tars may hold one file twice, tars of one class have names of their own."""
        return _without_twice(images.by_name()) if self.in_tree else images.by_name()

    def folder_of(self, file: SourceFile) -> str:
        """The folder that a tar of one class stands for; of a tree the one around all."""
        own = without_suffix(file.name)
        if self.by_split and "/" not in own and not self.in_tree:
            return f"{file.folder.rpartition('/')[2]}/{own}"
        return own

    def place(self, folder: str, path: str) -> tuple[str, str]:
        """The folder of an image and its name below all of them, of its path in the tar."""
        if self.in_tree:
            within = path.rpartition("/")[0]
            around = f"{folder}/" if self.by_split and within and "/" not in within else ""
            return around + within, around + path
        inside, own = path.split("/"), folder.rpartition("/")[2]
        if own in inside[:-1]:  # as `tar` packs a folder
            inside = inside[len(inside) - inside[::-1].index(own) :]
        return folder, "/".join((folder, *inside))

    def _distinct(self, parts: Sequence[FileListing], asked: str) -> set[str]:
        """The folders of all parts. UsageError where two tars are one class."""
        found: dict[str, str] = {}
        for part in parts:
            for folder in map(str, part.labels):
                if found.setdefault(folder, part.file) != part.file and not self.in_tree:
                    told = f"{found[folder]} and {part.file} are both the class {folder!r}"
                    raise UsageError(asked, told, "name one of them in `urls`")
        return set(found)

    def _items(self, part: FileListing, folders: dict[str, ClassFolder], classes: Classes) -> Iterator[Item]:
        """Its images by their names in a folder, with the numbers of their classes."""
        of = [folders[str(label)] for label in part.labels]
        cut = [len(str(label)) for label in part.labels]
        numbers = [_number(one.name, classes) for one in of] if self.labelled else []
        for item in part.images:
            (row,) = item.labels
            placed = item._replace(name=of[row].below + item.name[cut[row] :], split=of[row].split, labels=())
            if self.labelled:
                number = numbers[row]
                wrong = number if isinstance(number, str) else ""
                placed = placed._replace(labels=() if wrong else (int(number),), fault=placed.fault or wrong)
            yield placed


def _listed(
    file: SourceFile, found: dict[str, tuple[str, Member]], replaced: Sequence[tuple[str, str, Member]]
) -> tuple[Items, tuple[str, ...]]:
    """The images, their labels places among the folders. What a later member replaces, as unpacking does, is told."""
    places: dict[str, int] = {}
    items = Items()
    for name, (folder, one) in found.items():
        place = places.setdefault(folder, len(places))
        items.append(Item(name, (place,), None, one.size, (file.number, one.offset), one.fault))
    for name, folder, one in replaced:
        fault = "a later member of the tar has the same name, and replaces it"
        items.append(Item(f"{name}@{one.offset}", (places[folder],), None, one.size, (file.number, one.offset), fault))
    return items, tuple(places)


def _without_twice(items: Items) -> Items:
    """Sorted items, those of a name that was there before set aside."""
    twice = [row for row in range(1, len(items)) if items.name(row) == items.name(row - 1)]
    if not twice:
        return items
    told = dict.fromkeys(twice, "another tar has a file of the same name")
    rows = (items.row(row) for row in range(len(items)))
    named = (
        one._replace(name=f"{one.name}@{one.place[0]}-{one.place[1]}", fault=told[row]) if row in told else one
        for row, one in enumerate(rows)
    )
    return Items(named).by_name()


def _weighed(damage: FileDamage, here: int) -> FileDamage:
    """What the damage to a tar may have cost: of a cut one, whose size nothing tells, as much again as it has."""
    lost = max(damage.images, here) if damage.open_end else damage.images
    again = f": {lost} more are reckoned with" if damage.open_end else ""
    return replace(damage, reason=f"{damage.reason}{again}; fetch this tar again", images=lost)


def _number(name: str, classes: Classes) -> int | str:
    try:
        return classes.number(name)
    except ValueError as error:
        return str(error)


def _few(notes: Sequence[str]) -> Iterable[str]:
    """The first of what is said of single tars, and how many more there are: there may be twenty thousand."""
    more = len(notes) - NOTES_TOLD
    return (*notes[:NOTES_TOLD], *([f"{more} more notes like these, of other tars"] if more > 0 else []))


def _empty(parts: Sequence[FileListing]) -> Iterable[str]:
    empty = [part.file for part in parts if not len(part.images)]
    return [f"{len(empty)} tars hold no image, and are no classes: {some(empty)}"] if empty else []
