"""A step asks the device for little more than bare torch does, and the host reads of it once: at every depth."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from inprocess import InProcessCluster
from launches import Asked, BareTorch, counting
from tiny_training import MICRO, NO_DROPOUT, OPTIMIZER, course, engine, images, model, steps

from vitpipe.infra.work import Rank
from vitpipe.stages.costs.launches import launches_of
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.objective.losses import softmax
from vitpipe.stages.variants import Sizes

WAYS = [(zero, precision) for zero in (0, 1) for precision in ("fp32", "bf16")]
DEPTHS = (2, 6)
MORE = 1.3
"""Operations of ours for each of bare torch, at most."""
ONCE = 60
"""Operations a step beside bare torch's that no block adds to: sums, flags and times of the loop."""


@dataclass(frozen=True)
class Workers:
    workers: int = 1


def deep(layers: int) -> ModelSettings:
    sizes = Sizes(layers=layers, width=32, mlp=64, heads=2, patch_px=8)
    return NO_DROPOUT.model_copy(update={"variant": sizes, "stochastic_depth": 0.1})


def counted(rank: Rank, layers: int, zero: int, precision: str) -> Asked:
    """The third step, from its passes to the next one's."""
    made = engine(rank, zero, precision, deep(layers), batch=MICRO * rank.world_size)
    going = steps(made, course(total_steps=5))
    next(going), next(going)
    with counting() as asked:
        next(going)
    return asked


def bare(layers: int, precision: str) -> Asked:
    made = BareTorch(model(deep(layers)), softmax, precision, OPTIMIZER.clip_norm or 0.0)
    made.step(images(0, MICRO))
    with counting() as asked:
        made.step(images(MICRO, MICRO))
    return asked


def write(folder: Path, rank: Rank) -> None:
    found = {
        f"{zero} {precision} {layers}": [asked.launches, asked.reads.total()]
        for zero, precision in WAYS
        for layers in DEPTHS
        for asked in [counted(rank, layers, zero, precision)]
    }
    (folder / f"{rank.world_size}-{rank.rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    folder = tmp_path_factory.mktemp("counts")
    InProcessCluster(1).gang(functools.partial(write, folder), resources=Workers())
    found: dict[str, list[int]] = json.loads((folder / "1-0.json").read_text())
    return found


@pytest.mark.parametrize(("zero", "precision"), WAYS)
def test_a_block_costs_what_bare_torch_pays_for_it(counts: dict[str, list[int]], zero: int, precision: str) -> None:
    few, many = (counts[f"{zero} {precision} {layers}"][0] for layers in DEPTHS)
    few_bare, many_bare = (bare(layers, precision).launches for layers in DEPTHS)
    assert many - few == many_bare - few_bare
    assert few - few_bare <= ONCE


@pytest.mark.parametrize(("zero", "precision"), WAYS)
def test_a_plan_reckons_with_what_is_counted(counts: dict[str, list[int]], zero: int, precision: str) -> None:
    for layers in DEPTHS:
        counted_here = counts[f"{zero} {precision} {layers}"][0]
        assert abs(launches_of(zero, precision, False).of_step(layers, passes=1) - counted_here) <= 4


@pytest.mark.parametrize(("zero", "precision"), WAYS)
def test_the_host_reads_once(counts: dict[str, list[int]], zero: int, precision: str) -> None:
    assert {counts[f"{zero} {precision} {layers}"][1] for layers in DEPTHS} == {1}


def test_a_read_and_a_loop_over_parameters_are_counted() -> None:
    """Negative control."""
    weights = [torch.ones(2) for _ in range(5)]
    with counting() as asked:
        if torch.stack([one.norm() for one in weights]).sum() > 1:
            weights[0].tolist()
    assert asked.reads.total() == 2
    assert asked.launches >= len(weights)
