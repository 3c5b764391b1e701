"""Compare what lies at the source now with what was ingested: for a plan, before anything runs. No torch.

By names and sizes; a time that differs is a hint; digests are compared when they are asked for.
"""

from importlib.metadata import version

from infra.errors import IntegrityError, NotFound, UsageError, VitpipeError
from stages.artifacts import ShardSet
from stages.ingest.config import BenchmarkSource, FolderSource, IngestConfig, IngestResources
from stages.ingest.digest_check import compared_by_digest, listed
from stages.ingest.files_config import FilesSource
from stages.ingest.inventory import INVENTORY, MARKS, Inventory, compare, parse_inventory, with_marks
from stages.ingest.source_files import must_be_there, place, present
from stages.ingest.source_folder import FolderTree
from stages.record import Record
from stages.sighting import VERIFY, Sighted


def look(config: IngestConfig, resources: IngestResources, shards: ShardSet, record: Record, digests: bool) -> Sighted:
    """What became of the source; never raises for what cannot be reached or read."""
    if resources.trust_source and not digests:
        return Sighted(note="the source was not looked at: resources.trust_source")
    try:
        found = _by_names(config, shards, record) if shards.has(INVENTORY) else _by_listing(config, shards, digests)
        if not digests or found.changes:
            return found
        return _by_digests(config, shards, record)
    except IntegrityError as error:
        return Sighted.unseen(f"{error.asked}: {error.found}; `vitpipe artifacts verify` tells what else is damaged")
    except VitpipeError as error:
        return Sighted.unseen(f"{place(config)}{_moved(config, record)}: {error.found or error}")
    except OSError as error:
        return Sighted.unseen(f"{place(config)}{_moved(config, record)}: {error}")


def _by_names(config: IngestConfig, shards: ShardSet, record: Record) -> Sighted:
    was, no_times = _inventory(shards, record)
    now, closed = present(config, was)
    found = compare(was, now, closed)
    what = f"{len(was)} {was.unit} of {place(config)}"
    if found.differs:
        return Sighted.other(found.text(what))
    moved = _moved(config, record)
    if found.touched:
        return Sighted(note=f"the source may have changed: {found.hint(what + moved)}", is_loud=True)
    return Sighted(note=f"the source is as it was ingested, {what}{moved}{no_times}", is_loud=bool(no_times))


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


def _by_listing(config: IngestConfig, shards: ShardSet, digests: bool) -> Sighted:
    """Of shards of earlier versions, which kept a digest of names, sizes and classes alone, no names."""
    source = config.source
    if isinstance(source, FolderSource) and shards.listing_sha256:
        tree = FolderTree(source.root, source.labels, config.splits == "folders")
        try:
            listing = tree.listing().part(source.limit, source.subset)
        except UsageError as error:
            if not any(tree.candidates()):  # raises for a root that is not there
                raise
            return Sighted.other(f"it can no longer be listed: {error.found}")
        if listing.sha256 == shards.listing_sha256:
            return Sighted(note=f"the source is as it was ingested, {len(listing.items)} images of {source.root}")
        return Sighted.other(f"other names, sizes or classes below {source.root}; an earlier version kept no counts")
    if isinstance(source, FilesSource | BenchmarkSource):
        if digests:
            must_be_there(config)
        return Sighted(note=f"the source was not looked at: an earlier version kept no names of its files; {VERIFY}")
    return Sighted()


def _by_digests(config: IngestConfig, shards: ShardSet, record: Record) -> Sighted:
    try:
        listing = listed(config)
    except (UsageError, IntegrityError) as error:
        return Sighted.other(f"it can no longer be ingested: {error.found}", by_digest=True)
    checked = compared_by_digest(config, listing, shards)
    what = f"{checked.images} images of {place(config)} by digest"
    if checked.difference.differs:
        return Sighted.other(checked.difference.text(what) + _made_otherwise(config, record), by_digest=True)
    if checked.other_classes:
        return Sighted.other(f"its images or their classes are read otherwise, of {what}", by_digest=True)
    unknown = f", but {checked.unknown} that the shards do not hold" if checked.unknown else ""
    return Sighted(note=f"the source is as it was ingested, {what}{unknown}", is_loud=bool(checked.unknown))


def _made_otherwise(config: IngestConfig, record: Record) -> str:
    """Where Pillow makes the bytes that are compared, and it is another than it was: words about that."""
    makes = config.reencode or config.restart_intervals or not isinstance(config.source, FolderSource | FilesSource)
    then, now = record.versions.get("pillow", ""), version("pillow")
    return f"; they were made by pillow {then}, here is {now}" if makes and then != now else ""
