"""A step whose loss or gradient is not finite: left out by all ranks at every ZeRO stage, and nothing remembers it."""

import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from inprocess import InProcessCluster
from tiny_training import BATCH, MICRO, NO_DROPOUT, OPTIMIZER, SCHEDULE, STEPS, course, engine, images, model
from torch import Tensor

from vitpipe.infra.errors import StageError
from vitpipe.infra.work import Rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.training.loop import train
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.objective.losses import softmax
from vitpipe.stages.training.optim.ema import WeightAverage
from vitpipe.stages.training.optim.schedule import lr_at
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer
from vitpipe.stages.training.skipping import MAX_IN_A_ROW, Skips

BAD_STEP = 2
"""Updates before the one that goes wrong; the rate is above 0 then, and moments are not."""
LOSS_AT, GRADIENT_AT = BAD_STEP * BATCH + 5, BAD_STEP * BATCH + 13
"""Positions of the image that spoils the step, of micro-batches of different ranks."""
TOLERANCE = 2e-5
"""As in test_parallel_equals_serial."""


def spoiled(at: int, start: int, count: int) -> Batch:
    """The images, those of one position with a label that no class has."""
    batch = images(start, count)
    return replace(batch, labels=torch.where(batch.positions_B == at, 100 + batch.labels, batch.labels))


def bad_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Infinite where the label is spoiled, with a gradient that is finite: as of a sum that overflows."""
    losses_B = softmax(outputs, labels % 100)
    return torch.where(labels >= 100, losses_B + torch.inf, losses_B)


def bad_gradient(outputs: Tensor, labels: Tensor) -> Tensor:
    """A finite loss whose gradient overflows."""
    if (labels >= 100).any():
        outputs.register_hook(lambda gradient: gradient * torch.inf)
    return softmax(outputs, labels % 100)


CASES: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "loss": (LOSS_AT, bad_loss),
    "gradient": (GRADIENT_AT, bad_gradient),
}


def facts_of(rank: Rank, zero: int, precision: str, case: str) -> Iterator[tuple[StepMetrics, bool]]:
    """Each step's facts, and whether the weights are those before it."""
    at, loss = CASES[case]
    made, way = engine(rank, zero, precision, NO_DROPOUT), course(settle_at=lambda step: True)
    batches = (spoiled(at, *asked) for asked in made.sampler.ranges(0, STEPS))
    parameters = list(made._engine.module.parameters())
    before = [one.detach().clone() for one in parameters]
    for facts in train(made, batches, loss, way):
        yield facts, all(map(torch.equal, before, parameters))
        before = [one.detach().clone() for one in parameters]


def curves(folder: Path, cells: list[tuple[int, str, str]], rank: Rank) -> None:
    for zero, precision, case in cells:
        found = [
            (one.loss, one.grad_norm, same, one.skipped and [one.skipped.reason, *one.skipped.positions])
            for one, same in facts_of(rank, zero, precision, case)
        ]
        (folder / f"{zero}-{precision}-{case}-{rank.rank}.json").write_text(json.dumps(found))


CELLS = [(zero, precision, case) for precision in ("fp32", "bf16") for zero in range(4) for case in CASES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skipped")
    InProcessCluster(2).gang(functools.partial(curves, folder, CELLS), resources=PretrainResources(workers=2))
    return folder


def read(trained: Path, zero: int, precision: str, case: str, rank: int = 0) -> list[list]:  # type: ignore[type-arg]
    return json.loads((trained / f"{zero}-{precision}-{case}-{rank}.json").read_text())


def without_the_bad_step() -> list[tuple[float, float]]:
    """(loss, gradient norm) of plain torch that computes the bad step's numbers and makes no update."""
    vit = model(NO_DROPOUT)
    optimizer, curve = build_optimizer(vit, OPTIMIZER), []
    for step in range(STEPS):
        parts = [images(step * BATCH + start, MICRO) for start in range(0, BATCH, MICRO)]
        mean = softmax(
            vit(torch.cat([part.images_BCHW for part in parts])), torch.cat([p.labels for p in parts])
        ).mean()
        optimizer.zero_grad()
        mean.backward()
        norm = torch.nn.utils.clip_grad_norm_(vit.parameters(), OPTIMIZER.clip_norm or 0.0)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, STEPS, SCHEDULE, OPTIMIZER.peak_lr)
        if step != BAD_STEP:
            optimizer.step()
        curve.append((mean.item(), norm.item()))
    return curve


@pytest.mark.parametrize(("zero", "precision", "case"), CELLS)
def test_all_ranks_leave_the_same_step_out_and_name_the_image(
    trained: Path, zero: int, precision: str, case: str
) -> None:
    for rank in (0, 1):
        found = read(trained, zero, precision, case, rank)
        assert [bool(skipped) for *_, skipped in found] == [step == BAD_STEP for step in range(STEPS)]
        reason, *positions = found[BAD_STEP][3]
        if case == "loss":
            assert (reason, positions) == ("a loss of inf", [LOSS_AT])
        else:
            assert "gradient norm" in reason
            assert positions == list(range(BAD_STEP * BATCH, (BAD_STEP + 1) * BATCH))


@pytest.mark.parametrize(("zero", "precision", "case"), [cell for cell in CELLS if cell[0] < 3])
def test_no_weight_moves_in_that_step_and_in_all_others_some_do(
    trained: Path, zero: int, precision: str, case: str
) -> None:
    """Step 0 has rate 0. At ZeRO 3 a rank holds no weights between steps; the curve tells."""
    moved = [not same for _, _, same, _ in read(trained, zero, precision, case)]
    assert moved == [step not in (0, BAD_STEP) for step in range(STEPS)]


@pytest.mark.parametrize(("zero", "case"), [(zero, case) for zero in range(4) for case in CASES])
def test_what_follows_is_as_if_the_update_had_never_been(trained: Path, zero: int, case: str) -> None:
    """Moments and bias corrections too: they decide the steps after it."""
    found = read(trained, zero, "fp32", case)
    for step, (loss, norm) in enumerate(without_the_bad_step()):
        if step != BAD_STEP:
            assert found[step][:2] == pytest.approx((loss, norm), rel=TOLERANCE)


def test_the_comparison_can_fail() -> None:
    """Negative control: had the update been made, the curve would be far away."""
    with mock.patch(f"{__name__}.BAD_STEP", -1):
        made = without_the_bad_step()
    assert made[-1] != pytest.approx(without_the_bad_step()[-1], rel=100 * TOLERANCE)


def test_the_average_passes_over_it(tmp_path: Path) -> None:
    with mock.patch.object(WeightAverage, "update", autospec=True) as update:
        InProcessCluster(1).gang(functools.partial(averaged, tmp_path), resources=PretrainResources())
    assert update.call_count == STEPS - 1


def averaged(folder: Path, rank: Rank) -> None:
    at, loss = CASES["loss"]
    made = engine(rank, 1, "fp32", NO_DROPOUT)
    with_average = type(made)(model(NO_DROPOUT), OPTIMIZER, replace(made.settings, ema_decay=0.9), made.sampler, rank)
    batches = (spoiled(at, *asked) for asked in made.sampler.ranges(0, STEPS))
    assert len(list(train(with_average, batches, loss, course()))) == STEPS


def endless(rank: Rank) -> None:
    """All images are bad."""
    made = engine(rank, 0, "fp32", NO_DROPOUT)
    batches = (images(*asked) for asked in made.sampler.ranges(0, 99))
    list(train(made, batches, lambda outputs, labels: softmax(outputs, labels) * math.nan, course(total_steps=99)))


def test_too_many_in_a_row_end_the_run() -> None:
    with pytest.raises(StageError, match=rf"make step {MAX_IN_A_ROW}.*loss of nan.*{MAX_IN_A_ROW} steps in a row"):
        InProcessCluster(1).gang(endless, resources=PretrainResources())


def test_too_many_in_all_end_the_run_over_resumes_too() -> None:
    skipped = mock.Mock()
    assert Skips(0, 98).after(7, skipped) == Skips(1, 99)
    assert Skips(3, 98).after(7, None) == Skips(0, 98)
    with pytest.raises(StageError, match="100 steps of this run"):
        Skips(0, 99).after(7, skipped)
