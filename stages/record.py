"""The record that makes an artifact true: what `record.json` says, and how a node's artifact is read through it."""

import hashlib
import re
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.names import checked
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.stages.artifacts import ARTIFACTS, Artifact, File, Frozen, Origin
from vitpipe.stages.seal import SEAL, broken

RECORD_SCHEMA: Final = 3
"""From 2 on a record carries its seal; one of 1 has nothing to be held against but who took it. Only those that say
`adopted` are of 3, so that an earlier vitpipe reads all others."""
RECORDS: Final = r"record(?:\.\d+)?\.json"
"""Names of a node's record, and of those that it replaced and which still hold."""
_NODE = re.compile(rb'"node":\s*"([a-z0-9/-]+)"')


class Record(Frozen):
    """`record.json`: its presence means done. Written last, created conditionally."""

    schema_: Literal[1, 2, 3] = Field(default=2, alias="schema")
    node: str
    stage: str
    fingerprint: str
    recipe: dict[str, Any]
    """The canonical content that the fingerprint hashes, so that two recipes can be compared field by field."""
    config: dict[str, Any]
    resources: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, tuple[Origin, ...]]
    """What the node took, as it was when the node ran."""
    output: dict[str, Any]
    files: tuple[File, ...]
    metrics: dict[str, float] = Field(default_factory=dict)
    estimate: dict[str, Any] = Field(default_factory=dict)
    """What the plan had said it would take."""
    code: str
    """Git commit, with `+dirty` when the tree differs."""
    versions: dict[str, str]
    started: str
    seconds: float
    attempt: str
    adopted: Origin | None = None
    """The record of another run that the result was taken over from, byte for byte: it was computed there, by the code
    and in the versions that stand here."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def is_sealed(self) -> bool:
        """Whether it carries a seal: a changed bit in it is then noticed whenever it is read."""
        return self.schema_ >= 2

    def artifact(self, uri: str, record_sha256: str) -> Artifact:
        """The typed artifact this record vouches for; `uri` is the node's folder."""
        facts = dict(self.output)
        kind = ARTIFACTS[facts.pop("kind")]
        origin = Origin(uri=uri, fingerprint=self.fingerprint, record_sha256=record_sha256)
        return kind(**facts, files=self.files, metrics=self.metrics, origin=origin)


def read_record(uri: str) -> tuple[Record, str]:
    """Read `{uri}/record.json`; the record and the SHA-256 of its bytes.

    Errors: NotFound when there is none; UsageError for a record of a newer schema; IntegrityError for a damaged one.
    """
    data = open_store(uri).read("record.json")
    return parse_record(data, uri), hashlib.sha256(data).hexdigest()


def parse_record(data: bytes, uri: str, node: str = "", name: str = "record.json") -> Record:
    """The record that `{uri}/{name}` holds; `node` is the node's id, where the caller knows it. Errors: `read_record`.

    Where each file lies must be inside the node's folder: whoever deletes or copies goes by it.
    """
    try:
        fields = {"schema": 1, **parse_object(data)}
        schema = fields["schema"]
        if (SEAL in fields or 1 < schema <= RECORD_SCHEMA) and (found := broken(data, fields)):
            raise ValueError(found)
        if schema > RECORD_SCHEMA:
            found = f"schema {schema} was written by a newer vitpipe; this one reads up to {RECORD_SCHEMA}"
            raise UsageError(f"read {uri}/{name}", found, "update vitpipe")
        record = Record.model_validate({key: value for key, value in fields.items() if key != SEAL})
        if not record.is_sealed:
            record.model_copy(update={"files": ()}).artifact(uri, "")  # its facts must be those of a known kind
        for file in record.files:
            _inside(file)
        return record
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(uri, str(error), node or _node_of(data, uri), name) from error


def damaged(uri: str, found: str, node: str, name: str = "record.json") -> IntegrityError:
    """Make the error for a result, or its record, that is not what was committed. Its remedy loses nothing."""
    check = f"`vitpipe artifacts verify {uri.removesuffix(f'/{node}')} {node}`"
    do = f"restore it from a copy ({check} tells when it is right again), or run under another `name`"
    return IntegrityError(f"read {uri}/{name}".rstrip("/"), f"it is damaged: {found}", do)


def _node_of(data: bytes, uri: str) -> str:
    """The node of a damaged record: the one it names, if its folder has that name too; else the folder's name."""
    named = match[1].decode() if (match := _NODE.search(data)) else ""
    return named if named and uri.endswith(f"/{named}") else uri.rpartition("/")[2]


def _inside(file: File) -> None:
    try:
        checked(file.at)
    except UsageError as error:
        raise ValueError(f"it names {file.path} at {file.at!r}: {error.found}") from error


def records_in(node: Store) -> list[Record]:
    """The record in a node's folder and those that it replaced, `record.{fence}.json`. Errors as `read_record`."""
    names = (entry.path for entry in node.list("record"))
    return [parse_record(node.read(name), node.uri, name=name) for name in names if re.fullmatch(RECORDS, name)]


def load_artifact(uri: str) -> Artifact:
    """The artifact committed in the node folder `uri`. Errors as `read_record`."""
    record, sha256 = read_record(uri)
    return record.artifact(uri, sha256)
