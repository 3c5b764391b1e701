"""The record that makes an artifact true: what `record.json` says, and how a node's artifact is read through it."""

import hashlib
import json
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from infra.errors import IntegrityError, UsageError
from infra.storage.opening import open_store
from stages.artifacts import ARTIFACTS, Artifact, File, Frozen, Origin

RECORD_SCHEMA: Final = 1


class InputRef(Frozen):
    """One artifact a node took, as it was when the node ran."""

    uri: str
    fingerprint: str
    record_sha256: str


class Record(Frozen):
    """`record.json`: its presence means done. Written last, created conditionally."""

    schema_: Literal[1] = Field(default=RECORD_SCHEMA, alias="schema")
    node: str
    stage: str
    fingerprint: str
    recipe: dict[str, Any]
    """The canonical content that the fingerprint hashes, so that two recipes can be compared field by field."""
    config: dict[str, Any]
    resources: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, tuple[InputRef, ...]]
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

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

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


def parse_record(data: bytes, uri: str) -> Record:
    try:
        fields = json.loads(data)
        if fields.get("schema", RECORD_SCHEMA) > RECORD_SCHEMA:
            raise UsageError(
                f"read {uri}/record.json",
                f"schema {fields['schema']} was written by a newer vitpipe; this one reads up to {RECORD_SCHEMA}",
                "update vitpipe",
            )
        return Record.model_validate(fields)
    except ValueError as error:
        raise IntegrityError(f"read {uri}/record.json", f"it is damaged: {error}", "restore the object") from error


def load_artifact(uri: str) -> Artifact:
    """The artifact committed in the node folder `uri`. Errors as `read_record`."""
    record, sha256 = read_record(uri)
    return record.artifact(uri, sha256)
