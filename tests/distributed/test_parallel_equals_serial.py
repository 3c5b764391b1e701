"""ZeRO 0 to 3, on one rank and on two with padding, give what plain torch gives; bf16 stays near it."""

import functools
import json
import time
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest
from inprocess import InProcessCluster
from tiny_training import NO_DROPOUT, STEPS, course, engine, images, plain_torch, steps

from vitpipe.infra.work import Rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.pretrain.config import PretrainResources

STAGES = (0, 1, 2, 3)
SLOW_S = 0.2
LAYER_DECAY = 0.5
TOLERANCE = 2e-5
"""Relative. A sum of n fp32 numbers in another order differs by at most about n/2 ulp (6e-8 each); gradients sum over
20 images x 17 tokens = 340 terms: 1e-5 a step before Adam, whose first steps keep only the gradient's sign and so
damp it. Twice that over 6 steps."""


def curves(folder: Path, cells: list[tuple[int, str]], rank: Rank) -> None:
    """Train every (zero, precision), one after another on the same ranks."""
    for zero, precision in cells:
        facts = list(steps(engine(rank, zero, precision, NO_DROPOUT), course()))
        assert [one.step for one in facts] == list(range(1, STEPS + 1))
        name = f"{zero}-{precision}-{rank.world_size}-{rank.rank}.json"
        (folder / name).write_text(json.dumps([(one.loss, one.grad_norm) for one in facts]))
    for zero, precision in [*((zero, "fp32") for zero in STAGES), (0, "bf16")]:
        facts = list(steps(engine(rank, zero, precision, NO_DROPOUT, layer_decay=LAYER_DECAY), course()))
        name = f"{zero}-{precision}-layers-{rank.rank}.json"
        (folder / name).write_text(json.dumps([(one.loss, one.grad_norm) for one in facts]))
    slow = list(steps(engine(rank, 1, "fp32", NO_DROPOUT), course(), functools.partial(reading, rank.rank)))
    rank_times = [[asdict(pace) for pace in one.rank_times] for one in slow]
    (folder / f"rank_times-{rank.rank}.json").write_text(json.dumps(rank_times))


def reading(rank: int, start: int, count: int) -> Batch:
    """The images; rank 1's come late."""
    if rank == 1:
        time.sleep(SLOW_S)
    return images(start, count)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    cells = [(zero, precision) for precision in ("fp32", "bf16") for zero in STAGES]
    InProcessCluster(2).gang(functools.partial(curves, folder, cells), resources=PretrainResources(workers=2))
    return folder


def curve(trained: Path, name: str) -> list[list[float]]:
    return json.loads((trained / f"{name}.json").read_text())


@pytest.mark.parametrize("zero", STAGES)
def test_two_ranks_in_fp32_give_plain_torchs_losses(trained: Path, zero: int) -> None:
    for found, wanted in zip(curve(trained, f"{zero}-fp32-2-0"), plain_torch(), strict=True):
        assert found == pytest.approx(wanted, rel=TOLERANCE)


@pytest.mark.parametrize("zero", STAGES)
def test_layer_decay_is_plain_torchs_however_the_groups_are_cut(trained: Path, zero: int) -> None:
    wanted = plain_torch(layer_decay=LAYER_DECAY)
    for found, step in zip(curve(trained, f"{zero}-fp32-layers-0"), wanted, strict=True):
        assert found == pytest.approx(step, rel=TOLERANCE)
    assert wanted[-1] != pytest.approx(plain_torch()[-1], rel=100 * TOLERANCE), "the comparison can fail"
    rounded = curve(trained, "0-bf16-layers-0")
    assert [loss for loss, _ in rounded] == pytest.approx([loss for loss, _ in wanted], rel=2 * 4e-3)


def test_the_comparison_can_fail() -> None:
    """Negative control: dropout alone moves the curve a hundred tolerances away."""
    with_dropout = plain_torch(NO_DROPOUT.model_copy(update={"dropout": 0.1}))
    assert plain_torch()[-1] != pytest.approx(with_dropout[-1], rel=100 * TOLERANCE)


@pytest.mark.parametrize("zero", STAGES)
def test_bf16_stays_within_its_rounding_of_fp32(trained: Path, zero: int) -> None:
    """bf16 keeps 8 bits (4e-3 relative); a loss of 1.6 made of such logits is that near, norms a few times less so."""
    bf16, fp32 = curve(trained, f"{zero}-bf16-2-0"), curve(trained, f"{zero}-fp32-2-0")
    for (loss, norm), (wanted_loss, wanted_norm) in zip(bf16, fp32, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=2 * 4e-3)
        assert norm == pytest.approx(wanted_norm, rel=10 * 4e-3)


@pytest.mark.parametrize("zero", STAGES)
def test_all_ranks_see_the_same_facts(trained: Path, zero: int) -> None:
    assert curve(trained, f"{zero}-fp32-2-0") == curve(trained, f"{zero}-fp32-2-1")


def test_every_rank_knows_which_one_waits_for_its_data(trained: Path) -> None:
    by_rank = [json.loads((trained / f"rank_times-{rank}.json").read_text()) for rank in (0, 1)]
    assert by_rank[0] == by_rank[1] and len(by_rank[0]) == STEPS
    for first, second in by_rank[0]:
        assert second["data_wait_seconds"] >= 2 * SLOW_S  # of its two real micro-batches
        assert min(first["forward_seconds"], second["forward_seconds"]) > 0
    waited = [sum(pair[rank]["data_wait_seconds"] for pair in by_rank[0]) for rank in (0, 1)]
    assert waited[1] > waited[0]


@pytest.mark.parametrize("zero", [0, 1])
def test_fifty_steps_through_deepspeed_are_those_of_plain_torch(tmp_path: Path, zero: int) -> None:
    """Bias corrections, decay masks, clipping and the whole schedule; errors add up over nine times as many steps."""
    with mock.patch("tiny_training.STEPS", 50):
        InProcessCluster(1).gang(functools.partial(fifty, tmp_path, zero), resources=PretrainResources())
        wanted = plain_torch()
    found = json.loads((tmp_path / "fifty.json").read_text())
    assert len(found) == len(wanted) == 50
    for pair, one in zip(found, wanted, strict=True):
        assert pair == pytest.approx(one, rel=50 / STEPS * TOLERANCE)


def fifty(folder: Path, zero: int, rank: Rank) -> None:
    facts = steps(engine(rank, zero, "fp32", NO_DROPOUT), course(total_steps=50))
    (folder / "fifty.json").write_text(json.dumps([(one.loss, one.grad_norm) for one in facts]))
