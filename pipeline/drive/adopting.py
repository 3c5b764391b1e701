"""Take over an equal result of another run: its files, each under a name of our own, and what our record says of it.

The other run may be removed afterwards. Knows no stage; decides nothing.
"""

import re
from typing import Any

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import NotFound, StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.infra.work import stop_if_asked
from vitpipe.pipeline.store.records import Committed, read_committed
from vitpipe.pipeline.store.retrieval import file_problem
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import StageContext
from vitpipe.stages.record import Record
from vitpipe.stages.settings import Settings, TaskResources
from vitpipe.stages.sighting import HINTS


def problem(result: Committed, ctx: StageContext[Settings]) -> str | None:
    """Read every file of the result, in tasks; say which is not what the record says, or None."""
    files = [(result.uri, file) for file in _once(result)]
    note = f"reads what {result.uri} holds"
    for number, done in enumerate(ctx.cluster.fan(_problem, files, resources=TaskResources(), label=_label), 1):
        if found := done.value():
            return found
        ctx.progress.update(number, len(files), unit="files", note=note)
        stop_if_asked(ctx.fence, f"adopt {result.uri}", f"after {number} of {len(files)} files")
    return None


def take(result: Committed, store: Store, ctx: StageContext[Settings], pieces: str | None) -> tuple[File, ...]:
    """Give each file, and the times of its source, a name in this attempt; the files as they lie here.

    What a resume would take for a finished piece comes last, after what it vouches for. StorageError when the result
    is no longer there.
    """
    origin = open_store(result.uri)
    hints = [entry.path for entry in origin.list(f"{result.record.attempt}/{HINTS}")]
    places = {at.removeprefix(f"{result.record.attempt}/"): at for at in hints}
    places |= {file.path: file.at for file in _once(result)}  # two names may be of one file, which then is two
    first = {path: at for path, at in places.items() if not (pieces and re.fullmatch(pieces, path))}

    def copy(path: str) -> None:
        stop_if_asked(ctx.fence, f"adopt {result.uri}")
        source, target = f"{result.uri}/{places[path]}", f"{ctx.out.node.uri}/{ctx.out.at(path)}"
        store.copy(source.removeprefix(f"{store.uri}/"), target.removeprefix(f"{store.uri}/"))

    try:
        for batch in (first, places.keys() - first.keys()):
            for _ in answers(copy, sorted(batch)):
                pass
        found = read_committed(origin)
    except NotFound as error:
        found = None
        missing = str(error)
    else:
        missing = "its record is another now"
    if found is None or found.data != result.data:
        do = "run the same command again: it takes another equal result, or computes it"
        raise StorageError(f"adopt {result.uri}", f"it was removed or replaced meanwhile: {missing}", do)
    return tuple(file.model_copy(update={"at": ctx.out.at(file.path)}) for file in result.record.files)


def record_of(result: Committed, files: tuple[File, ...], **about: Any) -> Record:
    """Write the record of this run: what it says of the computing is the other's, `about` is our own."""
    adopted = result.record.adopted or result.ref
    return result.record.model_copy(update={**about, "schema_": 3, "files": files, "adopted": adopted})


def _once(result: Committed) -> list[File]:
    return list({file.path: file for file in result.record.files}.values())


def _problem(item: tuple[str, File]) -> str | None:
    uri, file = item
    found = file_problem(open_store(uri), file)
    return f"{uri}/{file.at} {found}" if found else None


def _label(item: tuple[str, File]) -> str:
    return item[1].path
