"""The running average of the weights: its formula at every ZeRO stage, plain torch's values, resumed as undisturbed."""

import functools
from pathlib import Path

import pytest
import torch
from inprocess import InProcessCluster
from safetensors.torch import load_file
from states import read_state, write_state
from test_state_files import gathered
from tiny_training import MICRO, NO_DROPOUT, SOFTMAX, images, model, steps
from torch import Tensor

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.work import Rank
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.training.checkpoint.committed_steps import STATE, average_files
from vitpipe.stages.training.checkpoint.state_files import StateFiles
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.loop import LoopPlan
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.optim.rules.sgd import Sgd
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer
from vitpipe.stages.training.sampler import DataParallelSampler

CASES = [(0, "fp32"), (1, "fp32"), (3, "fp32"), (0, "bf16"), (1, "bf16"), (3, "bf16")]
STEPS = {"fp32": 20, "bf16": 8}
BATCH, HALF = 2 * MICRO, 4
DECAY, LR = 0.9, 0.05
SGD = Sgd(kind="sgd", peak_lr=LR, weight_decay=0.0, clip_norm=1.0)


def engine_of(rank: Rank, zero: int, precision: str, decay: float | None = DECAY) -> Engine:
    vit, sampler = model(NO_DROPOUT), DataParallelSampler(BATCH, MICRO, rank.rank, rank.world_size)
    settings = EngineSettings(zero, precision, SGD.clip_norm, NO_DROPOUT.image_px, decay)
    return Engine(vit, SGD, settings, sampler, rank)


def way(first_step: int, total_steps: int) -> LoopPlan:
    """Settled after every step, so that what is gathered then is what the step left."""
    return LoopPlan(
        seed=3, first_step=first_step, total_steps=total_steps, lr=lambda step: LR, settle_at=lambda step: True,
        stopping=lambda: None,
    )  # fmt: skip


class Followed:
    """The average by its formula, in double precision."""

    def __init__(self, start: dict[str, Tensor]) -> None:
        self.average = {name: one.detach().double() for name, one in start.items()}

    def update(self, weights: dict[str, Tensor]) -> None:
        for name, kept in self.average.items():
            kept.mul_(DECAY).add_(weights[name].detach().double(), alpha=1 - DECAY)


def train_all(folder: Path, rank: Rank) -> None:
    """Each case undisturbed; and for 4 steps, then the others in an engine that loaded those."""
    for zero, precision in CASES:
        total = STEPS[precision]
        case = folder / f"{zero}-{precision}"
        whole = engine_of(rank, zero, precision)
        followed = Followed(gathered(whole))
        for facts in steps(whole, way(0, total)):
            followed.update(gathered(whole))
            if facts.step == HALF:
                write_state(whole, case / "half", rank.rank)
        write_state(whole, case / "whole", rank.rank)
        torch.distributed.barrier()
        again = engine_of(rank, zero, precision)
        read_state(again, case / "half")
        assert [facts.step for facts in steps(again, way(HALF, total))][-1] == total
        write_state(again, case / "again", rank.rank)
        if rank.rank == 0:
            torch.save(followed.average, case / "followed.pt")
    write_state(engine_of(rank, 1, "fp32", decay=None), folder / "without", rank.rank)


def plain_torch() -> dict[str, Tensor]:
    """One process, whole batches, no DeepSpeed."""
    vit = model(NO_DROPOUT)
    optimizer, loss, followed = build_optimizer(vit, SGD), loss_fn(SOFTMAX), Followed(dict(vit.named_parameters()))
    for step in range(STEPS["fp32"]):
        parts = [images(step * BATCH + start, MICRO) for start in range(0, BATCH, MICRO)]
        optimizer.zero_grad()
        loss(
            vit(torch.cat([part.images_BCHW for part in parts])), torch.cat([part.labels for part in parts])
        ).mean().backward()
        torch.nn.utils.clip_grad_norm_(vit.parameters(), SGD.clip_norm or 0.0)
        optimizer.step()
        followed.update(dict(vit.named_parameters()))
    return followed.average


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average")
    InProcessCluster(2).gang(functools.partial(train_all, folder), resources=PretrainResources(workers=2))
    return folder


def averaged(folder: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in StateFiles(folder / STATE, average=True)}


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_the_average_is_its_formula_on_the_master_weights(trained: Path, zero: int, precision: str) -> None:
    """A step rounds once or twice to fp32, 6e-8 of the value each; decayed by 0.9, 20 of them sum to below 1.2e-6."""
    case = trained / f"{zero}-{precision}"
    wanted, found = torch.load(case / "followed.pt"), averaged(case / "whole")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), tensor, rtol=1.2e-6, atol=1.2e-7)
    plain = StateFiles(case / "whole" / STATE)  # negative control: the weights themselves are elsewhere
    weights = {name: torch.from_numpy(array) for name, array in plain}
    assert (weights["head.weight"] - found["head.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_two_ranks_average_what_plain_torch_averages(trained: Path, zero: int) -> None:
    """Gradients of norm 1 at most, wrong by 1e-5 in relative terms as in test_parallel_equals_serial, summed with
    momentum 0.9 over 20 steps of 0.05: at most 0.05 x 10 x 20 x 1e-5 = 1e-4, for a norm; a single weight less."""
    found = averaged(trained / f"{zero}-fp32" / "whole")
    for name, tensor in plain_torch().items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_resumed_is_the_undisturbed_average(trained: Path, zero: int, precision: str) -> None:
    case = trained / f"{zero}-{precision}"
    wanted, found = averaged(case / "whole"), averaged(case / "again")
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    assert not torch.equal(averaged(case / "half")["head.weight"], wanted["head.weight"])


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_each_rank_keeps_its_share(trained: Path, zero: int) -> None:
    folder = trained / f"{zero}-fp32" / "whole" / STATE
    names = average_files(path.name for path in sorted(folder.glob("*")))
    assert names == [f"average-{rank:05d}.safetensors" for rank in (0, 1)]
    total = sum(parameter.numel() for parameter in model(NO_DROPOUT).parameters())
    kept = [sum(part.numel() for part in load_file(folder / name).values()) for name in names]
    assert sum(kept) == total and max(kept) <= total / 2 + 100  # stages 1 to 3 pad


def test_a_missing_part_is_refused(trained: Path, tmp_path: Path) -> None:
    for path in (trained / "3-fp32" / "whole" / STATE).glob("*"):
        if path.name != "average-00001.safetensors":
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(IntegrityError, match="average-00001"):
        dict(StateFiles(tmp_path, average=True))
    dict(StateFiles(tmp_path))


def test_without_one_nothing_is_written(trained: Path) -> None:
    assert average_files(path.name for path in (trained / "without" / STATE).glob("*")) == []
