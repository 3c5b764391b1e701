"""The table of stages: what each takes and gives, and where its code is.

Code is named by dotted paths, so that reading the table imports nothing. Knows no YAML and no store.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vitpipe.stages.settings import Settings

if TYPE_CHECKING:  # reading a YAML needs neither artifacts nor stores
    from vitpipe.stages.contract import EstimateFn, LookFn, RunFn


@dataclass(frozen=True)
class Need:
    """One input of a stage."""

    kind: str
    """The artifact that it must be; for Weights, a Score that carries weights will do."""
    required: bool = False
    many: bool = False
    """Takes a list; an input that is not `many` refuses one, even of one."""


@dataclass(frozen=True)
class Stage:
    """One verb of the YAML."""

    name: str
    version: int
    """The result's version: raise it when a default or what the code computes changes, so that old results drift."""
    inputs: Mapping[str, Need]
    output: str
    config: str
    resources: str
    run: str
    estimate: str
    look: str | None = None
    """Compares the stage's source, where it has one outside of the store, with what was taken from it. Pieces are then
    adopted by what is in them, for the fingerprint does not cover the data."""
    pieces: str | None = None
    """Regular expression of the files that are finished pieces of an attempt, which a later attempt may adopt.

    Where several files belong to one piece, a group in it names the piece.
    """
    carries_weights: bool = False
    """Whether its output has `native/` weights in it, though it is not called Weights."""

    def config_class(self) -> type[Settings]:
        """Import the Settings class of the node's `config`."""
        return cast(type[Settings], _load(self.config))

    def resources_class(self) -> type[Settings]:
        """Import the Settings class of the node's `resources`."""
        return cast(type[Settings], _load(self.resources))

    def run_fn(self) -> "RunFn[Settings, Settings]":
        """Import the function that does the stage's work."""
        return cast("RunFn[Settings, Settings]", _load(self.run))

    def estimate_fn(self) -> "EstimateFn[Settings, Settings]":
        """Import the function that estimates its work."""
        return cast("EstimateFn[Settings, Settings]", _load(self.estimate))

    def look_fn(self) -> "LookFn[Settings, Settings] | None":
        """Import the function that compares its source with what was taken; None for a stage without a source."""
        return cast("LookFn[Settings, Settings]", _load(self.look)) if self.look else None

    def check(self, config: Settings, resources: Settings, given: Mapping[str, int]) -> list[str]:
        """Say what is wrong with config, resources and the given inputs (how many of each name) together.

        Asks the optional hooks of the stage's config module: `check(config, resources)` and
        `check_inputs(config, given)`.
        """
        module = importlib.import_module(self.config.partition(":")[0])
        problems: list[str] = []
        if hasattr(module, "check"):
            problems += module.check(config, resources)
        if hasattr(module, "check_inputs"):
            problems += module.check_inputs(config, given)
        return problems


def accepts(need: Need, kind: str, carries_weights: bool) -> bool:
    """Whether an artifact of `kind` may be given where `need` stands."""
    return kind == need.kind or (need.kind == "Weights" and carries_weights)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


_STAGES = (
    Stage(
        "ingest",
        version=3,
        inputs={"exclude": Need("ShardSet", many=True)},
        output="ShardSet",
        config="vitpipe.stages.ingest.config:IngestConfig",
        resources="vitpipe.stages.ingest.config:IngestResources",
        run="vitpipe.stages.ingest.run:run",
        estimate="vitpipe.stages.ingest.estimate:estimate",
        look="vitpipe.stages.ingest.drift:look",
        pieces=r".*\.index",
    ),
    Stage(
        "pretrain",
        version=3,
        inputs={
            "shards": Need("ShardSet", required=True, many=True),
            "probes": Need("ShardSet", many=True),
            "init": Need("Weights"),
            "continue": Need("Checkpoint"),
        },
        output="Checkpoint",
        config="vitpipe.stages.pretrain.config:PretrainConfig",
        resources="vitpipe.stages.pretrain.config:PretrainResources",
        run="vitpipe.stages.pretrain.run:run",
        estimate="vitpipe.stages.pretrain.estimate:estimate",
        pieces=r"step-(\d+)/manifest\.json|committed/step-(\d+)",  # a mark alone tells of a step that was lost
    ),
    Stage(
        "convert",
        version=2,
        inputs={"checkpoint": Need("Checkpoint"), "weights": Need("Weights")},
        output="Weights",
        config="vitpipe.stages.convert.config:ConvertConfig",
        resources="vitpipe.stages.convert.config:ConvertResources",
        run="vitpipe.stages.convert.run:run",
        estimate="vitpipe.stages.convert.estimate:estimate",
        look="vitpipe.stages.convert.foreign.changes:look",
    ),
    Stage(
        "finetune",
        version=1,
        inputs={"data": Need("ShardSet", required=True), "weights": Need("Weights")},
        output="Score",
        config="vitpipe.stages.finetune.config:FinetuneConfig",
        resources="vitpipe.stages.finetune.config:FinetuneResources",
        run="vitpipe.stages.finetune.run:run",
        estimate="vitpipe.stages.finetune.estimate:estimate",
        pieces=r"trials/.*\.json",
        carries_weights=True,
    ),
    Stage(
        "evaluate",
        version=2,
        inputs={"data": Need("ShardSet", required=True), "weights": Need("Weights")},
        output="Score",
        config="vitpipe.stages.evaluate.config:EvaluateConfig",
        resources="vitpipe.stages.evaluate.config:EvaluateResources",
        run="vitpipe.stages.evaluate.run:run",
        estimate="vitpipe.stages.evaluate.estimate:estimate",
    ),
    Stage(
        "report",
        version=3,
        inputs={
            "scores": Need("Score", required=True, many=True),
            "checkpoint": Need("Checkpoint"),
            "weights": Need("Weights"),
            "shards": Need("ShardSet"),
        },
        output="Report",
        config="vitpipe.stages.report.config:ReportConfig",
        resources="vitpipe.stages.report.config:ReportResources",
        run="vitpipe.stages.report.run:run",
        estimate="vitpipe.stages.report.estimate:estimate",
    ),
)

CATALOG: dict[str, Stage] = {stage.name: stage for stage in _STAGES}
