"""The lazy reader against real DeepSpeed engines: every ZeRO stage, fp32 and bf16, on ranks that do not divide."""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from inprocess import InProcessCluster
from torch import Tensor

from infra.errors import IntegrityError
from infra.work import Rank
from stages.training.config import OptimizerSettings
from stages.training.deal import Deal
from stages.training.engine import STATE, Engine, EngineSettings
from stages.training.inert_pickle import load_mapped
from stages.training.optimisers import build
from stages.training.zero_files import ZeroFiles, needed_files
from stages.vit.config import ModelSettings, Sizes
from stages.vit.init import init_weights
from stages.vit.model import ViT

RANKS = 3
CASES = list(itertools.product((0, 1, 2, 3), ("fp32", "bf16")))
MODEL = ModelSettings(
    variant=Sizes(layers=2, width=20, mlp=37, heads=2, patch_px=7), image_px=21, classes=5, representation=7
)


@dataclass(frozen=True)
class Workers:
    workers: int = RANKS


def train_all(folder: Path, rank: Rank) -> None:
    """Three steps of each case, its checkpoint, and the weights as DeepSpeed itself gathers them."""
    for zero, precision in CASES:
        model = ViT(MODEL)
        init_weights(model, seed=0)
        deal = Deal(batch_images=4 * rank.world_size, micro_batch=4, rank=rank.rank, world_size=rank.world_size)
        optimizer = build(model, OptimizerSettings(peak_lr=1e-2))
        engine = Engine(
            model, optimizer, EngineSettings(zero=zero, precision=precision, clip_norm=1.0, image_px=21), deal, rank
        )
        generator = torch.Generator().manual_seed(rank.rank)
        for _ in range(3):
            images = torch.randint(0, 256, (4, 3, 21, 21), dtype=torch.uint8, generator=generator)
            labels = torch.randint(0, 5, (4,), generator=generator)
            losses = torch.nn.functional.cross_entropy(engine.forward(images).float(), labels, reduction="none")
            engine.accumulate(losses, torch.ones(4))
            engine.step(lr=1e-2)
        engine.save(folder / f"{zero}-{precision}")
        weights = gathered(engine, zero)
        if rank.rank == 0:
            torch.save(weights, folder / f"{zero}-{precision}.pt")


def gathered(engine: Engine, zero: int) -> dict[str, Tensor]:
    from deepspeed.utils import safe_get_full_fp32_param  # only on a rank, as in the engine itself

    inner: Any = engine._engine
    names = {id(parameter): name for name, parameter in inner.module.named_parameters()}
    if zero:
        return {name: safe_get_full_fp32_param(one).clone() for name, one in inner.module.named_parameters()}
    if not hasattr(inner.optimizer, "fp32_groups"):
        return {name: one.detach().clone() for name, one in inner.module.named_parameters()}
    pairs = zip(inner.optimizer.fp16_groups, inner.optimizer.fp32_groups, strict=True)
    return {
        names[id(low)]: high.detach().clone() for lows, highs in pairs for low, high in zip(lows, highs, strict=True)
    }


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    InProcessCluster(ranks_supported=RANKS).gang(functools.partial(train_all, folder), resources=Workers())
    return folder


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_master_weights_are_those_deepspeed_gathers(checkpoints: Path, zero: int, precision: str) -> None:
    files = ZeroFiles(checkpoints / f"{zero}-{precision}" / STATE)
    wanted: dict[str, Tensor] = torch.load(checkpoints / f"{zero}-{precision}.pt")
    found = {name: files.tensor(name) for name in files.shapes}
    assert set(found) == set(wanted) == {name for name, _ in ViT(MODEL).named_parameters()}
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], tensor), name
    moved = found["blocks.0.attn.qkv.weight"]
    assert precision == "fp32" or not torch.equal(moved, moved.bfloat16().float())  # masters, not the rounded copies


def test_only_needed_files_are_named(checkpoints: Path) -> None:
    names = sorted(path.name for path in (checkpoints / "3-bf16" / STATE).glob("*"))
    needed = needed_files(names)
    assert needed[0] == "zero_pp_rank_0_mp_rank_00_model_states.pt"
    assert needed[1:] == [f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(RANKS)]
    assert len(names) == 2 * RANKS


@pytest.mark.parametrize("zero", [1, 3])
def test_a_missing_rank_is_refused(checkpoints: Path, tmp_path: Path, zero: int) -> None:
    for path in (checkpoints / f"{zero}-fp32" / STATE).glob("*"):
        if "rank_2" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(IntegrityError, match="ritten by 3 ranks, the optimiser states of 2"):
        ZeroFiles(tmp_path)


def test_a_torn_file_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    for path in (checkpoints / "1-fp32" / STATE).glob("*"):
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[: len(data) // 2] if "rank_1" in path.name else data)
    with pytest.raises(IntegrityError, match="damaged"):
        ZeroFiles(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="No model states"):
        ZeroFiles(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("bomb-went-off"),)


def test_nothing_in_a_pickle_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"module": {"x": torch.ones(2)}, "bomb": Bomb()}, "file.pt")
    assert torch.equal(load_mapped(tmp_path / "file.pt")["module"]["x"], torch.ones(2))
    assert not Path("bomb-went-off").exists()
    torch.load("file.pt", weights_only=False)
    assert Path("bomb-went-off").exists()  # it does where it is trusted


def test_tensors_are_mapped_not_loaded(tmp_path: Path) -> None:
    torch.save({"module": {"x": torch.zeros(1 << 20)}}, tmp_path / "file.pt")
    content = load_mapped(tmp_path / "file.pt")
    assert content["module"]["x"].numel() == 1 << 20
    assert str(tmp_path / "file.pt") in Path("/proc/self/maps").read_text()
