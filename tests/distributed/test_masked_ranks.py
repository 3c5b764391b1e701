"""Masked patch prediction on two ranks with padding, at every ZeRO stage, gives what plain torch gives."""

import functools
import json
from pathlib import Path

import pytest
from inprocess import InProcessCluster
from tiny_training import BATCH, MICRO, NO_DROPOUT, OPTIMIZER, compare_curves, course, images, plain_curve, steps

from vitpipe.infra.work import Rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.objective.corruption import corrupted
from vitpipe.stages.training.objective.masked_patches import MaskedPatchViT
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.vit.init import init_weights

OBJECTIVE = ObjectiveSettings(kind="masked_patch", target="rgb_4x4_3bit")
CELLS = [(zero, "fp32") for zero in (0, 1, 2, 3)] + [(1, "bf16"), (3, "bf16")]


def model() -> MaskedPatchViT:
    settings = NO_DROPOUT.model_copy(update={"classes": 0})
    made = MaskedPatchViT(settings, OBJECTIVE.outputs_of_patch(settings.sizes.patch_px))
    init_weights(made, seed=1)
    return made.train()


def read(start: int, count: int) -> Batch:
    return corrupted(images(start, count), 8, OBJECTIVE.patch_target, seed=3)


def curves(folder: Path, rank: Rank) -> None:
    for zero, precision in CELLS:
        vit, sampler = model(), DataParallelSampler(BATCH, MICRO, rank.rank, rank.world_size)
        settings = EngineSettings(zero, precision, OPTIMIZER.clip_norm, NO_DROPOUT.image_px)
        engine = Engine(vit, OPTIMIZER, settings, sampler, rank)
        curve = [(one.loss, one.grad_norm) for one in steps(engine, course(), read, OBJECTIVE)]
        (folder / f"{zero}-{precision}-{rank.rank}.json").write_text(json.dumps(curve))
    (folder / f"mapped-{rank.rank}").write_text(Path("/proc/self/maps").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    InProcessCluster(2).gang(functools.partial(curves, folder), resources=PretrainResources(workers=2))
    return folder


@pytest.mark.parametrize(("zero", "precision"), CELLS)
def test_two_ranks_give_plain_torchs_losses(trained: Path, zero: int, precision: str) -> None:
    """Terms of its first gradient nearly cancel: DeepSpeed's own ZeRO 2 is 1.9e-5 off in the norm, ZeRO 1 2.8e-5."""
    within = 4e-5 if zero == 1 else 2e-5
    compare_curves(trained, zero, precision, plain_curve(model(), read, OBJECTIVE), norms_within=within)


def test_ranks_compile_nothing_and_share_no_memory_by_name(trained: Path) -> None:
    """DeepSpeed's op for CPU ranks would be built, loaded, and have buffers that two gangs of one machine meet in."""
    for rank in (0, 1):
        mapped = (trained / f"mapped-{rank}").read_text()
        assert "libtorch_cpu.so" in mapped
        assert "deepspeed_shm_comm" not in mapped and "/dev/shm/deepspeed" not in mapped
