"""How many graphs a training compiles, where they break, and whether it compiles again while it goes on.

With stochastic depth, whose rate differs from block to block: the recipe of every large model.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch._dynamo
from torch._dynamo.utils import counters

from vitpipe.infra.work import Rank
from vitpipe.stages.gpu_check.findings import Cell, Findings, Way
from vitpipe.stages.gpu_check.ranks import one_rank
from vitpipe.stages.gpu_check.training import B16, BenchModel, Setting, Trained, build
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import Model
from vitpipe.stages.vit.compiled import compile_blocks

STEPS = 4
COMPILED_S = 25.0
"""What a precision may take: torch writes and compiles its kernels."""
VERSIONS = 8
"""Of one function, after which torch gives up by default."""
DEEP = BenchModel("tiny, 12 blocks", Sizes(layers=12, width=32, mlp=64, heads=2, patch_px=8), 16)
"""More blocks than torch compiles versions of one function."""


def run(way: Way, findings: Findings) -> None:
    """Count for each precision, on a CPU by tracing alone."""
    model, micro_batch = (B16, 32) if way.cuda and not way.shrunk else (DEEP, 4)
    with one_rank(way.device) as rank:
        for precision in ("bf16", "fp32") if way.cuda else ("fp32",):
            if precision == "fp32" and way.cuda and findings.left() < COMPILED_S:
                findings.left_out(f"graphs in {precision}")
                continue
            setting = Setting(model, micro_batch, precision, compiled=True, stochastic_depth=0.1)
            count(findings, f"{model.name}, {precision}", setting, rank, way)
    findings.note(
        f"a graph that breaks, or is made anew, costs each step; after {VERSIONS} versions torch gives up in silence"
    )


def count(
    findings: Findings,
    name: str,
    setting: Setting,
    rank: Rank,
    way: Way,
    make: Callable[[Setting, Rank, Way], Trained] | None = None,
) -> None:
    """Train some steps and add a row; each must be one graph a kind of block, made in the first step."""
    torch._dynamo.reset()
    counters.clear()
    first, gave_up = 0, ""
    try:
        # which otherwise goes on uncompiled, with a line in a log; timm's optimisers raise the limit for all
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=VERSIONS):
            trained = (make or traced)(setting, rank, way)
            trained.steps(1)
            first = graphs()
            trained.steps(STEPS - 1)
    except Exception as error:
        if "recompile" not in f"{type(error).__name__} {error}".lower():
            raise
        gave_up = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    breaks = dict(counters["graph_break"])
    cells: dict[str, Cell] = {
        "model": name,
        "graphs after one step": first,
        f"after {STEPS}": graphs(),
        "breaks": sum(breaks.values()),
        "gave up": bool(gave_up),
    }
    findings.row(cells, ok=0 < first == graphs() and not breaks and not gave_up)
    for reason, times in breaks.items():
        findings.note(f"{times} x {' '.join(str(reason).split())[:300]}")
    if gave_up:
        findings.note(gave_up)


def graphs() -> int:
    """Count the graphs that were compiled since the counters were cleared."""
    return int(counters["stats"]["unique_graphs"])


def traced(setting: Setting, rank: Rank, way: Way) -> Trained:
    """Build it compiled. On a CPU, where a pretraining compiles nothing, its blocks are traced, and run as they are."""
    trained = build(setting, rank, way.scratch)
    if not way.cuda:
        compile_blocks(cast(Model, trained.engine.model), _nobody, backend="eager")
    return trained


def _nobody(text: str) -> None:
    """Drop what a run would tell as an event: here giving up is an error."""
