"""The state's files against what DeepSpeed gathers: every ZeRO stage, fp32 and bf16, on ranks that do not divide."""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from inprocess import InProcessCluster
from safetensors import safe_open
from states import write_state
from torch import Tensor

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.work import Rank
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.checkpoint.committed_steps import STATE
from vitpipe.stages.training.checkpoint.state_files import LAYOUT, Layout, StateFiles
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.optim.rules.adamw import AdamW
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.model import ViT

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
        sampler = DataParallelSampler(
            batch_images=4 * rank.world_size, micro_batch=4, rank=rank.rank, world_size=rank.world_size
        )
        engine = Engine(
            model,
            AdamW(peak_lr=1e-2),
            EngineSettings(zero=zero, precision=precision, clip_norm=1.0, image_px=21),
            sampler,
            rank,
        )
        generator = torch.Generator().manual_seed(rank.rank)
        for _ in range(3):
            images = torch.randint(0, 256, (4, 3, 21, 21), dtype=torch.uint8, generator=generator)
            labels = torch.randint(0, 5, (4,), generator=generator)
            losses = torch.nn.functional.cross_entropy(engine.forward(images).float(), labels, reduction="none")
            engine.accumulate(losses, torch.ones(4))
            engine.step(lr=1e-2)
        write_state(engine, folder / f"{zero}-{precision}", rank.rank)
        weights = gathered(engine)
        if rank.rank == 0:
            torch.save(weights, folder / f"{zero}-{precision}.pt")


def gathered(engine: Engine) -> dict[str, Tensor]:
    from deepspeed.utils import safe_get_full_fp32_param  # only on a rank, as in the engine itself

    inner: Any = engine._engine
    return {name: safe_get_full_fp32_param(one).clone() for name, one in inner.module.named_parameters()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    InProcessCluster(ranks_supported=RANKS).gang(functools.partial(train_all, folder), resources=Workers())
    return folder


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_master_weights_are_those_deepspeed_gathers(checkpoints: Path, zero: int, precision: str) -> None:
    files = StateFiles(checkpoints / f"{zero}-{precision}" / STATE)
    wanted: dict[str, Tensor] = torch.load(checkpoints / f"{zero}-{precision}.pt")
    found = {name: torch.from_numpy(files.array(name)) for name in files.shapes}
    assert set(found) == set(wanted) == {name for name, _ in ViT(MODEL).named_parameters()}
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], tensor), name
    moved = found["blocks.0.attn.qkv.weight"]
    assert precision == "fp32" or not torch.equal(moved, moved.bfloat16().float())  # masters, not the rounded copies


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_all_ranks_write_every_number_once(checkpoints: Path, zero: int, precision: str) -> None:
    folder = checkpoints / f"{zero}-{precision}" / STATE
    layout = Layout.parse((folder / LAYOUT).read_bytes(), LAYOUT)
    total = sum(parameter.numel() for parameter in ViT(MODEL).parameters())
    assert sum(count for runs in layout.runs for _, _, count in runs) == total
    assert (layout.updates, layout.moments, layout.average) == (3, ("exp_avg", "exp_avg_sq"), False)
    sizes = [sum(count for *_, count in runs) for runs in layout.runs]
    assert max(sizes) - min(sizes) <= 200  # what DeepSpeed pads


@pytest.mark.parametrize("zero", [1, 3])
def test_a_missing_rank_is_refused(checkpoints: Path, tmp_path: Path, zero: int) -> None:
    for path in (checkpoints / f"{zero}-fp32" / STATE).glob("*"):
        if path.name != "weights-00002.safetensors":
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(IntegrityError, match="weights-00002"):
        dict(StateFiles(tmp_path))


def test_a_layout_with_a_gap_or_an_overlap_is_refused(checkpoints: Path) -> None:
    whole = Layout.parse((checkpoints / "1-fp32" / STATE / LAYOUT).read_bytes(), LAYOUT)
    (name, start, count), *others = whole.runs[0]
    for wrong in ([], [(name, start, count - 1)], [(name, start, count)] * 2):
        torn = whole.model_copy(update={"runs": ((*wrong, *others), *whole.runs[1:])})
        with pytest.raises(IntegrityError, match="do not make"):
            Layout.parse(torn.encoded(), LAYOUT)


def test_a_torn_file_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    for path in (checkpoints / "1-fp32" / STATE).glob("*"):
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[: len(data) // 2] if path.name.startswith("weights-00001") else data)
    with pytest.raises(IntegrityError, match="weights-00001"):
        dict(StateFiles(tmp_path))


def test_any_safetensors_reader_opens_them_mapped(checkpoints: Path) -> None:
    path = checkpoints / "1-fp32" / STATE / "weights-00000.safetensors"
    with safe_open(path, "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
        assert str(path) in Path("/proc/self/maps").read_text()
    assert all(key.startswith("weight/") and tensor.dim() == 1 for key, tensor in found.items())
