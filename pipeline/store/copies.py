"""Records of a whole run by few requests: `copies.json` holds copies of them, which one listing proves or refutes.

A copy counts only where the listing shows its record in the very state in which it was copied; every other record is
read itself. So whoever writes the copies, late, twice or never, no reader is told of anything but what is committed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.contents import RunContents, list_run
from vitpipe.pipeline.store.records import RECORD, Committed, read_committed
from vitpipe.stages.record import parse_record
from vitpipe.stages.seal import broken, sealed

COPIES = "copies.json"
COPIED_BYTES = 256 * 2**10
"""A longer record, of a thousand files and more, is not copied: it costs its reader a request of its own."""

FEW = 2
"""Records that are quicker read themselves."""

Found = Committed | IntegrityError | UsageError | None
"""A record, why it cannot be read, or that there is none."""


@dataclass(frozen=True)
class Copy:
    """A record's bytes, and in which state its object had them."""

    state: str
    text: str


def records_in_run(run: Store, seen: RunContents, ids: Iterable[str]) -> dict[str, Found]:
    """Read the records of these nodes as a listing shows them. StorageError."""
    committed = [id for id in ids if seen.of(id).committed]
    copies = read_copies(run) if len(committed) > FEW else {}

    def one(id: str) -> Found:
        node = run.child(id)
        try:
            copy = copies.get(id)
            if copy and copy.state == seen.of(id).signs.get(RECORD):
                data = copy.text.encode()
                return Committed(node.uri, parse_record(data, node.uri, id), data, "")
            return read_committed(node, id)
        except (IntegrityError, UsageError) as error:
            return error

    return by_key(one, committed)


def sound(found: Mapping[str, Found]) -> dict[str, Committed]:
    """Keep the records that can be read. Raises the error of the first that cannot."""
    for one in found.values():
        if isinstance(one, Exception):
            raise one
    return {id: one for id, one in found.items() if isinstance(one, Committed)}


def read_copies(run: Store) -> dict[str, Copy]:
    """Read the copies; none where they are absent or damaged, for they are only a shorter way."""
    try:
        data = run.read(COPIES)
        fields = parse_object(data)
        if broken(data, fields):
            return {}
        return {id: Copy(*map(str, one)) for id, one in fields["records"].items()}
    except (NotFound, IntegrityError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def renew_copies(run: Store) -> int:
    """Write the copies anew, of what one listing shows now; how many records had to be read. StorageError."""
    seen = list_run(run, brief=True)
    before = read_copies(run) if COPIES in seen.loose else {}
    states = {id: here.signs.get(RECORD) for id, here in seen.nodes.items() if here.committed}
    kept = {id: copy for id, copy in before.items() if copy.state == states.get(id)}
    new = by_key(lambda id: _copy(run.child(id), states[id]), [id for id in states if id not in kept])
    copies = kept | {id: copy for id, copy in new.items() if copy}
    if copies != before:
        records = {id: [copy.state, copy.text] for id, copy in sorted(copies.items())}
        run.write(COPIES, sealed({"records": records}))
    return len(new)


def _copy(node: Store, state: str | None) -> Copy | None:
    """Copy a record in exactly that state; None where it has no state, is long, damaged, or another by now."""
    if state is None:
        return None
    try:
        data = node.read(RECORD, version=state)
        proven = parse_record(data, node.uri).is_sealed and len(data) <= COPIED_BYTES
        return Copy(state, data.decode()) if proven else None
    except (NotFound, IntegrityError, UsageError):
        return None
