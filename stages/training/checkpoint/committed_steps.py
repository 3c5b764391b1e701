"""A committed step of a training: its manifest, and where such steps lie. No torch: the driver reads them too.

A step is the folder `step-{n}/` in an attempt; its `manifest.json`, written last, makes it true.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, ValidationError

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Digest, Store
from vitpipe.stages.artifacts import File, Frozen
from vitpipe.stages.contract import Out
from vitpipe.stages.record import records_in
from vitpipe.stages.seal import readable, seal_of

SCHEMA = 2
"""1 was DeepSpeed's own files, at the world size and ZeRO stage that wrote them."""
METRICS = "metrics.jsonl"
LEDGER = "ledger.jsonl"
"""The images of each step, by key."""
EVALUATION = "evaluation.jsonl"
"""What was measured between steps."""
TIME = "time.json"
"""Where the time went until then."""
STATE = "state"
"""Name of the folder, inside a step's, that the state of all ranks lies in."""
_AVERAGE = re.compile(r"(?:.*/)?average-\d+\.safetensors")
_MANIFEST = re.compile(r"([^/]+)/step-(\d+)/manifest\.json")
_MARK = re.compile(r"([^/]+)/committed/step-(\d+)")


class StepFile(Frozen):
    """One file of a step; `path` is its name inside the artifact, `step-{n}/...`."""

    path: str
    bytes: int
    sha256: str

    @property
    def digest(self) -> Digest:
        """Size and SHA-256, as a store compares them."""
        return Digest(self.bytes, self.sha256)


class StepManifest(Frozen):
    """`step-{n}/manifest.json`."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    step: int
    """Updates made."""
    samples_seen: int
    world_size: int
    zero: int
    precision: Literal["bf16", "fp32"]
    micro_batch: int
    files: tuple[StepFile, ...]
    sha256: str = ""
    """Digest of this manifest's canonical content without this field."""

    @property
    def folder(self) -> str:
        """Name of the step's folder inside the attempt's."""
        return f"step-{self.step}"

    def sealed(self) -> Self:
        """This manifest with its own digest filled in."""
        return self.model_copy(update={"sha256": self._digest()})

    def encoded(self) -> bytes:
        """The bytes to commit."""
        return readable(self.model_dump(mode="json", by_alias=True))

    def _digest(self) -> str:
        return seal_of(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """Read a manifest. Errors: IntegrityError when damaged, UsageError when of another schema."""
        try:
            schema = parse_object(data)["schema"]
            if isinstance(schema, int) and schema > SCHEMA:
                found = f"schema {schema} was written by a newer vitpipe; this one reads schema {SCHEMA}"
                raise UsageError(f"read {name}", found, "update vitpipe")
            if isinstance(schema, int) and schema < SCHEMA:
                found = f"schema {schema} is of DeepSpeed's own files, as vitpipe wrote them before its first release"
                raise UsageError(f"read {name}", found, "convert it with the vitpipe that wrote it, or train anew")
            manifest = cls.model_validate_json(data)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise IntegrityError(f"read {name}", f"it is damaged: {error}", "an earlier step may stand") from error
        if manifest.sha256 != manifest._digest():
            raise IntegrityError(f"read {name}", "its own digest does not match", "an earlier step may stand")
        return manifest


class StepPlace(Frozen):
    """Where a step lies: its attempt and number."""

    attempt: str
    step: int

    @property
    def folder(self) -> str:
        """Relative to the node's folder."""
        return f"{self.attempt}/step-{self.step}"

    @property
    def mark(self) -> str:
        """An empty object beside the folder that says the step was committed, even after its folder is lost."""
        return f"committed/step-{self.step}"

    def read(self, node: Store) -> StepManifest:
        """Its manifest, which must be of this very step. Errors: NotFound, and as `StepManifest.parse`."""
        name = f"{self.folder}/manifest.json"
        manifest = StepManifest.parse(node.read(name), name)
        if manifest.step != self.step:
            raise IntegrityError(f"read {name}", f"it is the manifest of step {manifest.step}")
        return manifest

    def files(self, manifest: StepManifest) -> tuple[File, ...]:
        """The step's files as those of an artifact, the manifest itself among them."""
        data, name = manifest.encoded(), f"{manifest.folder}/manifest.json"
        own = StepFile(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        return tuple(
            File(path=file.path, at=f"{self.attempt}/{file.path}", bytes=file.bytes, sha256=file.sha256)
            for file in (own, *manifest.files)
        )


@dataclass(frozen=True)
class Keep:
    """Which committed steps stay while the run goes on."""

    newest: int
    milestone_steps: int | None = None
    """Multiples of it stay for good."""

    def surplus(self, places: list[StepPlace]) -> list[StepPlace]:
        """Those to delete, given all, the newest first. A step made again counts once: the newest attempt's stays."""
        newest: dict[int, StepPlace] = {}
        for one in places:
            newest.setdefault(one.step, one)
        kept = list(newest.values())[: self.newest]
        every = self.milestone_steps
        return [one for one in places if one not in kept and not (every and one.step % every == 0)]


def average_files(names: Iterable[str]) -> list[str]:
    """Those among the files of a step that hold a running average; none where none was kept."""
    return sorted(name for name in names if _AVERAGE.fullmatch(name))


def no_average(uri: str) -> UsageError:
    """The error for a request for the average of a training that kept none."""
    found = "its training kept none"
    return UsageError(f"read the average of the weights of {uri}", found, "pretrain with `ema`, or use params")


def committed(node: Store, attempts: Sequence[str], *, lost: bool = False) -> list[StepPlace]:
    """Every step that was committed in these attempts (newest attempt first), the newest step first.

    Those deleted by `keep` are not among them; those whose manifest is lost are, if `lost` ones are asked for too.
    """
    return _in_order(_listed(node, attempts, *((_MANIFEST, _MARK) if lost else (_MANIFEST,))), attempts)


def mark_committed(out: Out, attempts: Sequence[str]) -> None:
    """Mark each committed step, those that a killed driver made too. LeaseLost when we hold the run no longer."""
    for place in unmarked(out.node, attempts):
        out.fence.check()
        out.node.write(f"{place.attempt}/{place.mark}", b"")


def prune(out: Out, attempts: Sequence[str], keep: Keep, newest: int) -> None:
    """Mark what is committed and delete what is kept no longer, once the step `newest` is committed.

    Later steps, which this run refused when it began, are not counted; what a record names stays. Of a step goes first
    what makes it true. LeaseLost when we hold the run no longer.
    """
    mark_committed(out, attempts)
    surplus = keep.surplus([one for one in committed(out.node, attempts, lost=True) if one.step <= newest])
    named = {file.at for record in records_in(out.node) for file in record.files} if surplus else set()
    for place in (one for one in surplus if f"{one.folder}/manifest.json" not in named):
        first = (f"{place.attempt}/{place.mark}", f"{place.folder}/manifest.json")
        paths = [entry.path for entry in out.node.list(f"{place.folder}/")]
        for path in first:
            out.fence.check()
            out.node.delete(path)
        out.node.delete_all([path for path in paths if path not in first], out.fence.check)


def unmarked(node: Store, attempts: Sequence[str]) -> list[StepPlace]:
    """Committed steps without their mark: whoever made them was killed, or refused by the store, between the two."""
    return _in_order(_listed(node, attempts, _MANIFEST) - _listed(node, attempts, _MARK), attempts)


def _listed(node: Store, attempts: Sequence[str], *patterns: re.Pattern[str]) -> set[StepPlace]:
    """The steps that have a file whose name matches one of the patterns."""
    folders = {_MANIFEST: "step-", _MARK: "committed/"}
    names = (
        (pattern, entry.path)
        for one in attempts
        for pattern in patterns
        for entry in node.list(f"{one}/{folders[pattern]}")
    )
    matches = (pattern.fullmatch(path) for pattern, path in names)
    return {StepPlace(attempt=match[1], step=int(match[2])) for match in matches if match}


def _in_order(places: set[StepPlace], attempts: Sequence[str]) -> list[StepPlace]:
    return sorted(places, key=lambda place: (-place.step, attempts.index(place.attempt)))
