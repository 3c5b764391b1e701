"""A ShardSet by name: the folder of the node that ingested it, as a path or a URI. No torch."""

from pathlib import Path

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.record import load_artifact


def named_shards(place: ShardSet | str | Path, asked: str) -> ShardSet:
    """Find an ingested set: `runs/x/shards`, `file://./runs/x/shards`, `s3://...`; a relative one from here.

    `asked` is how a message begins: `stream images of`. UsageError for a place where no ShardSet is committed.
    """
    if isinstance(place, ShardSet):
        return place
    uri = open_store(str(place) if "://" in str(place) else f"file://{Path(place).expanduser().absolute()}").uri
    try:
        found = load_artifact(uri)
    except NotFound as error:
        do = "name the folder of an ingest that is done, as STORE/RUN/NODE"
        raise UsageError(f"{asked} {uri}", "nothing is committed there: no record.json", do) from error
    if not isinstance(found, ShardSet):
        raise UsageError(f"{asked} {uri}", f"it is a {found.kind}", "name the node of an ingest")
    return found
