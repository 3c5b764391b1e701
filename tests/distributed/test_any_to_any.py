"""A state that 3 ranks wrote at any ZeRO stage, loaded by 2 at any other: the same numbers, and what they compute."""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from inprocess import InProcessCluster
from states import differing, numbers, read_state, write_state
from tiny_training import course, engine, images, steps

from vitpipe.infra.work import Rank
from vitpipe.stages.training.checkpoint.committed_steps import STATE

STAGES = [(zero, False) for zero in (0, 1, 2, 3)]
OFFLOADED = [(zero, True) for zero in (1, 2, 3)]
"""(ZeRO stage, offloaded)."""
CASES = [
    *itertools.product([STAGES[0], STAGES[1], STAGES[3]], STAGES, ("fp32", "bf16")),
    *itertools.product([STAGES[0]], OFFLOADED, ("bf16",)),
    *itertools.product(OFFLOADED, [STAGES[0]], ("bf16",)),
]
"""From, to; stages 1 and 2 cut alike."""


@dataclass(frozen=True)
class Workers:
    workers: int


def name_of(kind: tuple[int, bool], precision: str) -> str:
    return f"{kind[0]}{'-offload' if kind[1] else ''}-{precision}"


def write_all(folder: Path, rank: Rank) -> None:
    for kind, precision in sorted({(source, precision) for source, _, precision in CASES}):
        made = engine(rank, kind[0], precision, batch=12, ema_decay=0.9, offload=kind[1])
        for _ in steps(made, course(total_steps=2)):
            pass
        write_state(made, folder / name_of(kind, precision), rank.rank)


def load_all(folder: Path, rank: Rank) -> None:
    for source, target, precision in CASES:
        made = engine(rank, target[0], precision, batch=12, ema_decay=0.9, offload=target[1])
        read_state(made, folder / name_of(source, precision))
        case = folder / f"{name_of(source, precision)}-to-{name_of(target, precision)}"
        write_state(made, case, rank.rank)
        torch.manual_seed(0)
        outputs = made.forward(images(rank.rank * 4, 4).images_BCHW)
        torch.save(outputs.detach(), case / f"outputs-{rank.rank}.pt")
        if target[0] < 3:
            torch.save(made._engine.module.state_dict(), case / f"working-{rank.rank}.pt")


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    InProcessCluster(3).gang(functools.partial(write_all, folder), resources=Workers(3))
    InProcessCluster(2).gang(functools.partial(load_all, folder), resources=Workers(2))
    return folder


@pytest.mark.parametrize(("source", "target", "precision"), CASES)
def test_every_number_arrives(states: Path, source: tuple[int, bool], target: tuple[int, bool], precision: str) -> None:
    wrote = states / name_of(source, precision)
    case = states / f"{name_of(source, precision)}-to-{name_of(target, precision)}"
    assert differing(numbers(case / STATE), numbers(wrote / STATE)) == []
    same = states / f"{name_of(source, precision)}-to-{name_of((0, False), precision)}"
    for rank in (0, 1):
        if target[0] < 3:
            ours, theirs = (torch.load(one / f"working-{rank}.pt") for one in (case, same))
            assert all(ours[name].equal(theirs[name]) for name in theirs), "weights in the engine's precision"
        ours, theirs = (torch.load(one / f"outputs-{rank}.pt") for one in (case, same))
        # In bf16, of 8 bits, equal weights at another place in memory may be summed in another order; and stage 3 puts
        # a linear layer of its own in torch's place, which adds the bias after rounding
        apart = 2**-7 if precision == "bf16" else 0.0
        torch.testing.assert_close(ours, theirs, rtol=apart, atol=apart * theirs.abs().max().item())


def test_the_comparison_can_fail(states: Path) -> None:
    """Negative control: two precisions come to different numbers, and that is seen."""
    assert differing(numbers(states / "1-fp32" / STATE), numbers(states / "1-bf16" / STATE))
