"""The commit of a node: `record.json`, written last and only if absent. Its presence means that the node is done.

Knows what makes two records the same result; plans nothing.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vitpipe.infra.errors import AlreadyExists, Changed, DriftError, IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.attempts import Refs, digests
from vitpipe.stages.artifacts import Artifact, Origin
from vitpipe.stages.contract import Fence
from vitpipe.stages.record import Record, parse_record
from vitpipe.stages.seal import sealed

RECORD = "record.json"


@dataclass(frozen=True)
class Committed:
    """A record as it lies in the store."""

    uri: str
    """The node's folder."""
    record: Record
    data: bytes
    version: str
    """To name when it is replaced; empty of one that was read from the run's copies."""

    @property
    def sha256(self) -> str:
        """Digest of the record's bytes: nodes that take the artifact name it by this."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def ref(self) -> Origin:
        """The reference that a node which takes this artifact keeps in its record."""
        return Origin(uri=self.uri, fingerprint=self.record.fingerprint, record_sha256=self.sha256)

    @property
    def begun(self) -> datetime | None:
        """When its making began; None in a record of an earlier version that says so in another way."""
        try:
            moment = datetime.fromisoformat(self.record.started)
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @property
    def ended(self) -> datetime | None:
        """When it was complete; None where the beginning is not known."""
        return self.begun and self.begun + timedelta(seconds=self.record.seconds)

    def artifact(self) -> Artifact:
        """Return what the node made, as later stages take it."""
        return self.record.artifact(self.uri, self.sha256)

    def answers(self, fingerprint: str, inputs: Refs) -> bool:
        """Whether it is the result of this fingerprint and these inputs, compared by their records' digests."""
        return self.record.fingerprint == fingerprint and digests(self.record.inputs) == digests(inputs)


def read_committed(node: Store, id: str = "", name: str = RECORD) -> Committed | None:
    """Read the record in the folder of node `id`, or None. UsageError for a newer schema, IntegrityError for damage."""
    try:
        data, version = node.read_version(name)
    except NotFound:
        return None
    return Committed(node.uri, parse_record(data, node.uri, id, name), data, version)


def read_external(uri: str) -> Committed:
    """Read the record of another run's artifact. UsageError when there is none."""
    if found := read_committed(open_store(uri)):
        return found
    nothing = "there is no record.json: nothing is committed there"
    raise UsageError(f"use {uri}", nothing, "check the URI, or run that run first")


def commit(node: Store, record: Record, fence: Fence, replace: bool = False, anew: bool = False) -> Committed:
    """Commit the record; return what the store then holds, ours or an equal one that was quicker.

    With `replace` another result's record is kept as `record.{its fence}.json` and ours is swapped in; with `anew` a
    record of the same recipe is replaced too, for it was made of other data.
    Errors: LeaseLost; DriftError when another result is there and may not be replaced.
    """
    data = encode(record)
    fence.check()
    old = read_committed(node, record.node)
    try:
        if old is None:
            return Committed(node.uri, record, data, node.create(RECORD, data))
        if not replace or (old.answers(record.fingerprint, record.inputs) and not anew):
            return _accept(node, record)
        _keep(node, old)
        fence.check()
        return Committed(node.uri, record, data, node.swap(RECORD, data, old.version))
    except (AlreadyExists, Changed):
        return _accept(node, record)


def encode(record: Record) -> bytes:
    """Write the bytes to commit, with their seal."""
    fields = record.model_dump(mode="json", by_alias=True, exclude=None if record.adopted else {"adopted"})
    return sealed(fields) if record.is_sealed else json.dumps(fields, indent=1).encode()


def _accept(node: Store, record: Record) -> Committed:
    """Adopt the record that is there: our own, if the answer to its write was lost, or another driver's equal one."""
    found = read_committed(node, record.node)
    if found is None:
        raise DriftError(f"commit {node.uri}/{RECORD}", "it was removed meanwhile", "run the same command again")
    if found.answers(record.fingerprint, record.inputs):
        return found
    other = f"that of another recipe stands there, from {found.record.attempt}"
    do = f"choose another `name`, or run again with --replace {record.node}"
    raise DriftError(f"commit {node.uri}/{RECORD}", other, do)


def _keep(node: Store, old: Committed) -> None:
    name = f"record.{old.record.attempt.removeprefix('a').partition('.')[0]}.json"
    try:
        node.create(name, old.data)
    except AlreadyExists:
        if node.read(name) != old.data:  # equal bytes are our own copy, made before we were killed
            asked = f"keep the old record as {node.uri}/{name}"
            do = "leave both where they are, `gc` spares what they name, and run under another `name`"
            raise IntegrityError(asked, "another record stands there", do) from None
