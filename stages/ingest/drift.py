"""Compare what lies at the source now with what was ingested: for a plan, before anything runs. No torch.

By names and sizes; a time that differs is a hint; digests are compared when they are asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

from pydantic import ValidationError

from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, UsageError, VitpipeError
from vitpipe.infra.storage.hub_names import without_revisions
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.commits import at_commits, compared
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.drift_by_digest import KeptDigests, compared_by_digest, kept_digests
from vitpipe.stages.ingest.listing import MAX_NAMED, some
from vitpipe.stages.ingest.sources import inventory
from vitpipe.stages.ingest.sources.inventory import INVENTORY, FilesNow, Inventory
from vitpipe.stages.ingest.sources.source_settings import SourceSettings
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
        config, commits = at_commits(config)
        if other := compared(shards.commits, commits):
            same = was is not None and _by_names(config, shards, record, was, no_times, digests=False)
            return other.with_same_files() if same and same.is_same else other
        if was is None:
            found = _by_listing(config, shards, digests)
        else:
            found = _by_names(config, shards, record, was, no_times, digests)
        if found is None and was is not None and (whole := inventory.whole_files(was.texts)):
            return _by_whole_files(config, whole)
        if found is None and kept is not None:
            return _by_digests(config, shards, record, kept)
        return found or Sighted()
    except (VitpipeError, OSError) as error:
        return Sighted.unseen(f"{config.source.location}{_moved(config, record)}: {_why(config, error)}")


def _by_names(
    config: IngestConfig, shards: ShardSet, record: Record, was: Inventory, no_times: str, digests: bool
) -> Sighted | None:
    """None where digests have to tell."""
    now, kept = files_now(config.source, was)
    found = inventory.compare(was, now.inventory, now.is_closed)
    what = f"{len(was)} {was.unit} of {config.source.location}"
    unreadable = f"; not looked at: {', '.join(kept[:MAX_NAMED])}" if kept else ""
    of_texts = found.others and not found.counts and not any(one.endswith(GONE) for one in found.others)
    if found.differs and not (of_texts and ((digests and not unreadable) or _means_the_same(config, shards))):
        return Sighted.other(found.text(what) + unreadable)
    if digests and not unreadable:
        return None
    what += _moved(config, record)
    if found.touched:
        return Sighted(note=f"the source may have changed: {found.hint(what)}{unreadable}", is_loud=True)
    what += f"; {', '.join(found.others)}, but means the same" if of_texts else ""
    if unreadable:
        note = f"the source is as it was ingested as far as it can be seen, {what}{unreadable}"
        return Sighted(note=note, is_loud=True)
    note = f"the source is as it was ingested, {what}{no_times}"
    return Sighted(note=note, is_loud=bool(no_times), is_same=not no_times)


def _why(config: IngestConfig, error: VitpipeError | OSError) -> str:
    """What was found, and of what, where that is not the whole source."""
    if isinstance(error, OSError):
        return str(error)
    return error.found or str(error) if config.source.location in error.asked else error.in_brief


def _means_the_same(config: IngestConfig, shards: ShardSet) -> bool:
    """Whether other labels files give the same images the same classes; asked where that costs a listing alone."""
    if not shards.listing_sha256:
        return False
    try:
        listing = config.source.list_unopened(config.splits)
    except (UsageError, StorageError):
        return False
    return listing is not None and listing.sha256 == shards.listing_sha256


def files_now(source: SourceSettings, was: Inventory) -> tuple[FilesNow, Sequence[str]]:
    """What lies at the source now, its texts too; and what could not be looked at, which is taken to be as it was.

    UsageError where the source, or all of its files, are gone or out of reach; StorageError and OSError likewise.
    """
    now = source.files_now(was)
    if len(was) and not len(now.inventory):
        raise source.nothing_there()
    texts, unread = (now.inventory.texts, ()) if now.inventory.texts else _texts_now(source, was.texts)
    kept = (*(f"{name}: {why}" for name, why in sorted(now.unreadable.items())), *unread)
    return replace(now, inventory=replace(now.inventory, texts=texts)), kept


def _texts_now(source: SourceSettings, was: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Digests of the texts, without one that is gone; what cannot be read is as it was, with the reason."""
    try:
        read_whole = {name: sha256 for name, sha256 in was.items() if inventory.whole_files({name: sha256})}
        return {**read_whole, **source.text_digests()}, ()
    except UsageError as error:
        is_there = isinstance(error.__cause__, ValueError | IsADirectoryError)
        return {name: error.found for name in was if is_there}, ()
    except StorageError as error:
        return was, tuple(f"{name}: {error.found}" for name in was)


def _inventory(shards: ShardSet, record: Record) -> tuple[Inventory, str]:
    """What was ingested; and, where its times are lost, words about that."""
    was = inventory.parse_inventory(shards.read(INVENTORY), f"{INVENTORY} of {shards.uri}")
    try:
        return inventory.with_marks(was, shards.store().read(f"{record.attempt}/{inventory.MARKS}")), ""
    except NotFound:
        found = "lost"
    except ValueError as error:
        found = str(error)
    return was, f", by names and sizes alone: the times that they had are {found}; {VERIFY}"


def _moved(config: IngestConfig, record: Record) -> str:
    """Where it lay when it was ingested, if that was elsewhere."""
    try:
        was = type(config.source).model_validate(record.config.get("source", {})).location
    except ValidationError:  # of an earlier version, or of none
        return ""
    moved = without_revisions(was) != without_revisions(config.source.location)
    return f", ingested from {was}" if moved else ""


def _by_listing(config: IngestConfig, shards: ShardSet, digests: bool) -> Sighted | None:
    """What can be said of shards of earlier versions, which kept a digest of names, sizes and classes, no names."""
    source = config.source
    try:
        listing = source.list_unopened(config.splits) if shards.listing_sha256 else None
    except UsageError as error:
        if not source.is_there():
            raise
        return Sighted.other(f"it can no longer be listed: {_why(config, error)}")
    if listing is not None and listing.sha256 != shards.listing_sha256:
        other = f"other names, sizes or classes below {source.location}"
        return Sighted.other(f"{other}; an earlier version kept no counts")
    if digests:
        if not source.is_there():
            raise source.nothing_there()
        return None
    if listing is not None:
        return Sighted(note=f"the source is as it was ingested, {len(listing.items)} images of {source.location}")
    if source.is_installed:
        return None
    return Sighted(note=f"the source was not looked at: an earlier version kept no names of its files; {VERIFY}")


def _by_digests(config: IngestConfig, shards: ShardSet, record: Record, kept: KeptDigests) -> Sighted:
    try:
        listing = config.source.part(config.source.open(config.splits).listing())
    except (UsageError, IntegrityError) as error:
        return Sighted.other(f"it can no longer be ingested: {_why(config, error)}", by_digest=True)
    checked = compared_by_digest(config, listing, kept, shards.listing_sha256)
    what = f"{checked.images} images of {config.source.location} by digest"
    unread = checked.unreadable
    unreadable = f"; {unread} could not be read: {some(checked.unreadable_examples)}" if unread else ""
    if checked.difference.differs:
        other = checked.difference.text(what) + unreadable + _made_otherwise(config, record)
        return Sighted.other(other, by_digest=True)
    if checked.other_classes:
        return Sighted.other(f"its images or their classes are read otherwise, of {what}", by_digest=True)
    if unreadable:
        seen = f"{checked.images - unread} of {what}{unreadable}"
        return Sighted(note=f"the source is as it was ingested as far as it can be read, {seen}", is_loud=True)
    unknown = f", but {checked.unknown} that the shards do not hold" if checked.unknown else ""
    note = f"the source is as it was ingested, {what}{unknown}"
    return Sighted(note=note, is_loud=bool(checked.unknown), is_same=not checked.unknown)


def _by_whole_files(config: IngestConfig, was: Mapping[str, str]) -> Sighted:
    """Packed files are not unpacked again to be compared: their own bytes tell."""
    now = config.source.whole_digests()
    others = [name for name in sorted(was) if now.get(name) != was[name]]
    what = f"{len(was)} files of {config.source.location} by digest"
    if others:
        return Sighted.other(f"{len(others)} of {what} have other bytes: {some(others)}", by_digest=True)
    return Sighted(note=f"the source is as it was ingested, {what}", is_same=True)


def _made_otherwise(config: IngestConfig, record: Record) -> str:
    """Words about Pillow, where it makes the bytes that are compared and is another than it was."""
    makes = config.reencode or config.restart_intervals or config.source.makes_bytes
    then, now = record.versions.get("pillow", ""), version("pillow")
    return f"; they were made by pillow {then}, here is {now}" if makes and then != now else ""
