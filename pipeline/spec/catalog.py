"""The table of stages: what each takes and gives, and where its code is.

Code is named by dotted paths, so that reading the table imports nothing. Knows no YAML and no store.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from vitpipe.stages.settings import Settings

if TYPE_CHECKING:  # reading a YAML needs neither artifacts nor stores
    from vitpipe.stages.contract import EstimateFn, LookFn, RunFn


Reuse = Literal["run", "data", "store"]
REUSE: tuple[Reuse, ...] = get_args(Reuse)
"""How far a run looks for a result that it need not compute: in itself, for data in the whole store, for all results
in the whole store."""


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
    reach: Reuse | None = "store"
    """The narrowest `reuse` under which its result is adopted from another run; None for what is about its own run."""
    carries_weights: bool = False
    """Whether its output has `native/` weights in it, though it is not called Weights."""

    def is_adoptable(self, reuse: Reuse) -> bool:
        """Whether a result of another run is adopted under that word."""
        return self.reach is not None and REUSE.index(self.reach) <= REUSE.index(reuse)

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


def _stage(
    name: str,
    version: int,
    inputs: Mapping[str, Need],
    output: str,
    look: str | None = None,
    pieces: str | None = None,
    carries_weights: bool = False,
    reach: Reuse | None = "store",
) -> Stage:
    """A stage whose code lies in the package of its name."""
    room, settings = f"vitpipe.stages.{name}", f"vitpipe.stages.{name}.config:{name.title()}"
    places = f"{settings}Config", f"{settings}Resources", f"{room}.run:run", f"{room}.estimate:estimate"
    return Stage(name, version, inputs, output, *places, look and f"{room}.{look}", pieces, reach, carries_weights)


_DATA = {"data": Need("ShardSet", required=True), "weights": Need("Weights")}
_STAGES = (
    _stage(
        "ingest",
        4,
        {"exclude": Need("ShardSet", many=True)},
        "ShardSet",
        look="drift:look",
        pieces=r".*\.index|unpacked/\d+\.json",
        reach="data",
    ),
    _stage(
        "pretrain",
        4,
        {
            "shards": Need("ShardSet", required=True, many=True),
            "probes": Need("ShardSet", many=True),
            "watch": Need("ShardSet", many=True),
            "init": Need("Weights"),
            "continue": Need("Checkpoint"),
        },
        "Checkpoint",
        pieces=r"step-(\d+)/manifest\.json|committed/step-(\d+)",  # a mark alone tells of a step that was lost
    ),
    _stage(
        "convert", 2, {"checkpoint": Need("Checkpoint"), "weights": Need("Weights")}, "Weights", "foreign.changes:look"
    ),
    _stage("finetune", 1, _DATA, "Score", pieces=r"trials/.*\.json", carries_weights=True),
    _stage("evaluate", 3, _DATA, "Score"),
    _stage(
        "report",
        4,
        {
            "scores": Need("Score", required=True, many=True),
            "checkpoint": Need("Checkpoint"),
            "weights": Need("Weights"),
            "shards": Need("ShardSet"),
        },
        "Report",
        reach=None,
    ),
)

CATALOG: dict[str, Stage] = {stage.name: stage for stage in _STAGES}
