"""Artifacts: the frozen facts that pass from stage to stage, with their files and digests.

Stages meet only through artifacts; a reader believes only records.
Knows the store's protocol and nothing of how any stage works.
"""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Digest, Store
from vitpipe.stages.model_settings import ModelSettings


class Frozen(BaseModel):
    """Plain immutable data that survives JSON and pickling."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Frozen):
    """One file of an artifact: `path` is its name inside the artifact, `at` where it lies in the node's folder."""

    path: str
    at: str
    bytes: int
    sha256: str

    @property
    def digest(self) -> Digest:
        """Size and SHA-256, as the store compares them."""
        return Digest(self.bytes, self.sha256)


class Origin(Frozen):
    """The committed record an artifact was read from: where it lies and what it answers to."""

    uri: str
    """The node's folder, e.g. `s3://bucket/runs/i21k/shards`."""
    fingerprint: str
    record_sha256: str


class Artifact(Frozen):
    """What a stage returns and what another takes. Facts are fields; bytes are `files`."""

    kind: ClassVar[str] = "artifact"

    files: tuple[File, ...] = Field(default=(), repr=False)
    metrics: dict[str, float] = Field(default_factory=dict)
    """Numbers worth a line in the record (images per second, final loss): informative, never compared."""
    origin: Origin | None = None

    def facts(self) -> dict[str, Any]:
        """The artifact as the record's `output` field."""
        return {"kind": self.kind, **self.model_dump(mode="json", exclude={"files", "metrics", "origin"})}

    def has(self, path: str) -> bool:
        """Whether there is a file of that name inside the artifact."""
        return path in self._by_path

    def file(self, path: str) -> File:
        """Find a file by its name inside the artifact. IntegrityError when the record does not list it."""
        if path in self._by_path:
            return self._by_path[path]
        found = f"its record lists {len(self.files)} files, not this one"
        do = "run `vitpipe artifacts ls` to see what it holds"
        raise IntegrityError(f"read {path} of {self.kind} {self.uri}", found, do)

    @cached_property
    def _by_path(self) -> dict[str, File]:
        return {file.path: file for file in reversed(self.files)}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with other fields; what is found again is not copied, for the files may be others."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_by_path", None)
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()  # to a task it travels without what is found again
        return {**state, "__dict__": {name: value for name, value in state["__dict__"].items() if name != "_by_path"}}

    @property
    def uri(self) -> str:
        """The node's folder, or a word for an artifact that was not committed yet."""
        return self.origin.uri if self.origin else "(not committed)"

    @property
    def name(self) -> str:
        """The node's own name, the last part of its folder's."""
        return self.uri.rsplit("/", 1)[-1]

    def store(self) -> Store:
        """Open the node's folder. UsageError for an artifact that no record vouches for."""
        if self.origin is None:
            raise UsageError(f"read a {self.kind}", "it was never committed", "load it through its record")
        return open_store(self.origin.uri)

    def read(self, path: str) -> bytes:
        """Read a small file whole and verify it against the record."""
        file = self.file(path)
        data = self.store().read(file.at)
        found = Digest(len(data), hashlib.sha256(data).hexdigest())
        if found != file.digest:
            said = f"the record says {file.bytes} bytes, {file.sha256}"
            do = "the object was changed after its commit: restore it from a copy, or run under another `name`"
            asked, there = f"read {path} of {self.uri}", f"{found.bytes} bytes with SHA-256 {found.sha256}"
            raise IntegrityError(asked, f"{there}, {said}", do)
        return data

    def read_json(self, path: str) -> Any:
        """Read a small JSON file, verified as by `read`."""
        return json.loads(self.read(path))

    def fetch(self, path: str, folder: Path) -> Path:
        """Copy one file to `folder/path`, verified; the local path. What is there already is verified and kept."""
        file = self.file(path)
        local = folder / file.path
        local.parent.mkdir(parents=True, exist_ok=True)
        self.store().download(file.at, local, expect=file.digest)
        return local


PIXELS = "pixels"
"""Metric of a ShardSet: of all its images together."""
IMAGES = "images_{}"
"""Metric of a ShardSet: its images of a format, `jpeg`, `png` or `webp`, as they were looked at."""
COMPARED_IN_PART = "compared_in_part"
"""Metric of a ShardSet whose search for images that look alike met a cap: how many were not compared with all."""


class ShardSet(Artifact):
    """WebDataset tars with an index beside each, and `manifest.json` that lists them in order."""

    kind: ClassVar[str] = "ShardSet"

    manifest_sha256: str
    """SHA-256 of `manifest.json`: the identity of the data, part of every sample's order."""
    num_classes: int
    multi_label: bool = False
    splits: dict[str, int]
    """Images per split."""
    image_bytes: int = 0
    listing_sha256: str = ""
    """Digest of the source's listing (names, sizes, labels): whether a folder that moved is still the same."""
    commits: dict[str, str] = Field(default_factory=dict)
    """What was taken from the Hugging Face Hub: the commit by repository and revision."""


class Checkpoint(Artifact):
    """A pretrained state at its last step: `{folder}/` with a manifest of its own, and `labels.json`."""

    kind: ClassVar[str] = "Checkpoint"

    folder: str
    """`step-{n}` of the newest step."""
    step: int
    samples_seen: int
    model: ModelSettings
    """The architecture, number of classes filled in."""
    shards_sha256: tuple[str, ...]
    """Manifest digests of the ShardSets it was trained on."""


class Weights(Artifact):
    """Model parameters in one folder per format, `labels.json`, and `parity.json` that proves them."""

    kind: ClassVar[str] = "Weights"

    formats: tuple[str, ...]
    model: ModelSettings
    """As in Checkpoint."""
    pretrained_on: tuple[str, ...] = ()
    lineage: dict[str, str] = Field(default_factory=dict)
    """Where the parameters come from, in words that stand in the files too."""
    source_sha256: str = ""
    """Digest of the files' names and digests, for foreign weights; else empty."""
    commits: dict[str, str] = Field(default_factory=dict)
    """As in ShardSet."""


class Score(Artifact):
    """One result on one benchmark: `score.json`; from finetune also `native/` and `labels.json`."""

    kind: ClassVar[str] = "Score"

    benchmark: str
    metric: str
    value: float
    """Mean over seeds, as a fraction in [0, 1] for accuracies."""
    per_seed: tuple[float, ...]
    chosen: dict[str, Any] = Field(default_factory=dict)
    """What the dev split decided, e.g. `{"peak_lr": 0.03}`."""
    dev_scores: dict[str, float] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    """How it was measured: method, pretrained or not, shots, steps, crop."""
    num_test: int
    model: ModelSettings | None = None
    """Present when the score carries weights."""

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None of a single one."""
        return deviation(self.per_seed)


class Report(Artifact):
    """One offline HTML page with its data beside it."""

    kind: ClassVar[str] = "Report"

    headline: str


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def carries_weights(artifact: Artifact) -> TypeGuard[Weights | Score]:
    """Whether there are parameters in it that a model can be built from: Weights, and the Score of a fine-tuning."""
    return isinstance(artifact, Weights) or (isinstance(artifact, Score) and artifact.model is not None)


ARTIFACTS: dict[str, type[Artifact]] = {kind.kind: kind for kind in (ShardSet, Checkpoint, Weights, Score, Report)}
