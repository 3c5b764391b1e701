"""The source that packed tars are once they lie unpacked in the store. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.listing import FileDamage, Listing
from vitpipe.stages.ingest.sources.class_names import Classes, FileListing
from vitpipe.stages.ingest.sources.class_tar_images import ClassTars
from vitpipe.stages.ingest.sources.file_table import FileTable
from vitpipe.stages.ingest.sources.inventory import Inventory, whole_file
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.tar_contents import refuse_mixture
from vitpipe.stages.ingest.sources.tar_sample import held_by
from vitpipe.stages.ingest.sources.unpacking import unpacked_files


@dataclass(frozen=True)
class UnpackedTars(ClassTars):
    """Class tars that lie in the store of the run."""

    digests: tuple[tuple[str, str], ...] = ()
    """SHA-256 of each file as it was packed."""
    links: tuple[tuple[str, str], ...] = ()
    """What of each file was a link: its bytes are not there."""

    def inventory(self, listing: Listing) -> Inventory:
        """The packed files, with the digests by which a later look compares them."""
        texts = {whole_file(name): sha256 for name, sha256 in self.digests}
        return replace(super().inventory(listing), texts=texts)

    def joined(self, parts: Sequence[FileListing]) -> Listing:
        """As of plain tars, with what was a link."""
        found = super().joined(parts)
        damage = (*found.findings, *(FileDamage(file, reason) for file, reason in self.links))
        return replace(found, findings=tuple(sorted(damage, key=lambda one: one.name)))


def unpacked_tars(
    files: Sequence[SourceFile], fixed: Classes | None, patterns: tuple[str, ...], ctx: StageContext
) -> UnpackedTars:
    """Unpack the files into the store. UsageError where they are of two layouts; errors of `unpacking.unpack`."""
    if len(files) > 1:  # the largest is the likeliest to be of another: it is told before the work
        refuse_mixture({file.name: held_by(file) for file in (files[0], max(files, key=lambda file: file.size))})
    found = unpacked_files(files, ctx)
    refuse_mixture({one.name: one.holds for one in found})
    parts = (part for one in found for part in one.parts(ctx.out))
    table = FileTable(replace(part, number=number) for number, part in enumerate(parts))
    digests = tuple((one.name, one.sha256) for one in found)
    links = tuple((one.name, link) for one in found for link in one.links)
    return UnpackedTars(table, fixed, patterns, files, found[0].holds == "tree", digests=digests, links=links)
