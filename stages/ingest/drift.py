"""Compare what lies at the source now with what was ingested: for a plan, before anything runs. No torch.

By names and sizes; a time that differs is a hint; digests are compared when they are asked for.
"""

from importlib.metadata import version

from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, UsageError, VitpipeError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.ingest.config import BenchmarkSource, FolderSource, IngestConfig, IngestResources
from vitpipe.stages.ingest.drift_by_digest import Kept, compared_by_digest, kept_digests, listed
from vitpipe.stages.ingest.listing import MAX_NAMED, some
from vitpipe.stages.ingest.sources.files import FilesSource
from vitpipe.stages.ingest.sources.folder_tree import FolderTree
from vitpipe.stages.ingest.sources.inventory import INVENTORY, MARKS, Inventory, compare, parse_inventory, with_marks
from vitpipe.stages.ingest.sources.source_files import must_be_there, place, present
from vitpipe.stages.record import Record
from vitpipe.stages.sighting import GONE, VERIFY, Sighted


def look(config: IngestConfig, resources: IngestResources, shards: ShardSet, record: Record, digests: bool) -> Sighted:
    """What became of the source; never raises for what cannot be reached or read of it.

    Errors: IntegrityError, NotFound and StorageError for the files of `shards` themselves.
    """
    if resources.trust_source and not digests:
        return Sighted(note="the source was not looked at: resources.trust_source")
    was, no_times = _inventory(shards, record) if shards.has(INVENTORY) else (None, "")
    kept = kept_digests(shards) if digests else None
    try:
        if was is None:
            found = _by_listing(config, shards, digests)
        else:
            found = _by_names(config, shards, record, was, no_times, digests)
        if found is None and kept is not None:
            return _by_digests(config, shards, record, kept)
        return found or Sighted()
    except VitpipeError as error:
        return Sighted.unseen(f"{place(config)}{_moved(config, record)}: {_why(config, error)}")
    except OSError as error:
        return Sighted.unseen(f"{place(config)}{_moved(config, record)}: {error}")


def _by_names(
    config: IngestConfig, shards: ShardSet, record: Record, was: Inventory, no_times: str, digests: bool
) -> Sighted | None:
    """None where digests have to tell."""
    there = present(config, was)
    found = compare(was, there.now, there.closed)
    what = f"{len(was)} {was.unit} of {place(config)}"
    kept_back = f"; not looked at: {', '.join(there.kept_back[:MAX_NAMED])}" if there.kept_back else ""
    of_texts = found.others and not found.counts and not any(one.endswith(GONE) for one in found.others)
    if found.differs and not (of_texts and ((digests and not kept_back) or _means_the_same(config, shards))):
        return Sighted.other(found.text(what) + kept_back)
    if digests and not kept_back:
        return None
    what += _moved(config, record)
    if found.touched:
        return Sighted(note=f"the source may have changed: {found.hint(what)}{kept_back}", is_loud=True)
    beside = f"; {', '.join(found.others)}, but means the same" if of_texts else ""
    if kept_back:
        return Sighted(
            note=f"the source is as it was ingested as far as it can be seen, {what}{beside}{kept_back}", is_loud=True
        )
    return Sighted(note=f"the source is as it was ingested, {what}{beside}{no_times}", is_loud=bool(no_times))


def _why(config: IngestConfig, error: VitpipeError) -> str:
    """What was found, and of what, where that is not the whole source."""
    return error.found or str(error) if place(config) in error.asked else f"{error.asked}: {error.found}"


def _means_the_same(config: IngestConfig, shards: ShardSet) -> bool:
    """Whether other labels files give the same images the same classes; asked where that costs a listing alone."""
    if not isinstance(config.source, FolderSource) or not shards.listing_sha256:
        return False
    try:
        return listed(config).sha256 == shards.listing_sha256
    except (UsageError, StorageError):
        return False


def _inventory(shards: ShardSet, record: Record) -> tuple[Inventory, str]:
    """What was ingested; and, where its times are lost, words about that."""
    was = parse_inventory(shards.read(INVENTORY), f"{INVENTORY} of {shards.uri}")
    try:
        return with_marks(was, shards.store().read(f"{record.attempt}/{MARKS}")), ""
    except NotFound:
        found = "lost"
    except ValueError as error:
        found = str(error)
    return was, f", by names and sizes alone: the times that they had are {found}; {VERIFY}"


def _moved(config: IngestConfig, record: Record) -> str:
    """Where it lay when it was ingested, if that was elsewhere."""
    source = record.config.get("source", {})
    was = source.get("root") or source.get("urls") or ""
    was = ", ".join(was) if isinstance(was, list) else was
    return f", ingested from {was}" if was and was != place(config) else ""


def _by_listing(config: IngestConfig, shards: ShardSet, digests: bool) -> Sighted | None:
    """Of shards of earlier versions, which kept a digest of names, sizes and classes alone, no names."""
    source = config.source
    if isinstance(source, FolderSource) and shards.listing_sha256:
        tree = FolderTree(source.root, source.labels, config.splits == "folders")
        try:
            listing = tree.listing().part(source.limit, source.subset)
        except UsageError as error:
            if not any(tree.candidates({})):  # raises for a root that is not there
                raise
            return Sighted.other(f"it can no longer be listed: {_why(config, error)}")
        if listing.sha256 == shards.listing_sha256:
            return (
                None
                if digests
                else Sighted(note=f"the source is as it was ingested, {len(listing.items)} images of {source.root}")
            )
        return Sighted.other(f"other names, sizes or classes below {source.root}; an earlier version kept no counts")
    if isinstance(source, FilesSource | BenchmarkSource):
        if digests:
            must_be_there(config)
            return None
        return Sighted(note=f"the source was not looked at: an earlier version kept no names of its files; {VERIFY}")
    return None


def _by_digests(config: IngestConfig, shards: ShardSet, record: Record, kept: Kept) -> Sighted:
    try:
        listing = listed(config)
    except (UsageError, IntegrityError) as error:
        return Sighted.other(f"it can no longer be ingested: {_why(config, error)}", by_digest=True)
    checked = compared_by_digest(config, listing, kept, shards.listing_sha256)
    what = f"{checked.images} images of {place(config)} by digest"
    kept_back = (
        f"; {checked.kept_back} could not be read: {some(checked.kept_back_examples)}" if checked.kept_back else ""
    )
    if checked.difference.differs:
        return Sighted.other(
            checked.difference.text(what) + kept_back + _made_otherwise(config, record), by_digest=True
        )
    if checked.other_classes:
        return Sighted.other(f"its images or their classes are read otherwise, of {what}", by_digest=True)
    if kept_back:
        seen = checked.images - checked.kept_back
        return Sighted(
            note=f"the source is as it was ingested as far as it can be read, {seen} of {what}{kept_back}", is_loud=True
        )
    unknown = f", but {checked.unknown} that the shards do not hold" if checked.unknown else ""
    return Sighted(note=f"the source is as it was ingested, {what}{unknown}", is_loud=bool(checked.unknown))


def _made_otherwise(config: IngestConfig, record: Record) -> str:
    """Where Pillow makes the bytes that are compared, and it is another than it was: words about that."""
    makes = config.reencode or config.restart_intervals or not isinstance(config.source, FolderSource | FilesSource)
    then, now = record.versions.get("pillow", ""), version("pillow")
    return f"; they were made by pillow {then}, here is {now}" if makes and then != now else ""
