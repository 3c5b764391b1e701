"""A masked autoencoder on two ranks with padding, at every ZeRO stage, gives what plain torch gives."""

import functools
import json
from pathlib import Path

import pytest
import torch
from inprocess import InProcessCluster
from tiny_training import BATCH, MICRO, NO_DROPOUT, OPTIMIZER, compare_curves, course, images, plain_curve, steps

from vitpipe.infra.work import Rank
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.training.config import DecoderSettings, ObjectiveSettings
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.objective.autoencoder import MaskedAutoencoder, begin
from vitpipe.stages.training.objective.hidden_patches import hidden
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.vit.visible import fixed_table

OBJECTIVE = ObjectiveSettings(kind="mae", decoder=DecoderSettings(layers=1, width=16, heads=2))
CELLS = [(zero, "fp32") for zero in (0, 1, 2, 3)] + [(1, "bf16"), (3, "bf16")]


def model() -> MaskedAutoencoder:
    made = MaskedAutoencoder(NO_DROPOUT.model_copy(update={"classes": 0}), OBJECTIVE)
    begin(made, seed=1)
    return made.train()


def read(start: int, count: int) -> Batch:
    return hidden(images(start, count), 8, OBJECTIVE.visible(16), seed=3)


def curves(folder: Path, rank: Rank) -> None:
    whole = torch.from_numpy(fixed_table(4, 32, class_token=True)).flatten()
    for zero, precision in CELLS:
        table = whole.bfloat16().float() if precision == "bf16" else whole  # as the model computes with it
        vit, sampler = model(), DataParallelSampler(BATCH, MICRO, rank.rank, rank.world_size)
        settings = EngineSettings(zero, precision, OPTIMIZER.clip_norm, NO_DROPOUT.image_px, ema_decay=0.9)
        engine = Engine(vit, OPTIMIZER, settings, sampler, rank)
        curve = [(one.loss, one.grad_norm) for one in steps(engine, course(), read, OBJECTIVE)]
        (folder / f"{zero}-{precision}-{rank.rank}.json").write_text(json.dumps(curve))
        held = [part for part in engine.state.held if part.name == "pos_embed"]
        for part in held:
            assert torch.equal(part.within(part.weights), table[part.start : part.start + part.count])
        (folder / f"{zero}-{precision}-{rank.rank}.held").write_text(str(sum(part.count for part in held)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hidden")
    InProcessCluster(2).gang(functools.partial(curves, folder), resources=PretrainResources(workers=2))
    return folder


@pytest.mark.parametrize(("zero", "precision"), CELLS)
def test_two_ranks_give_plain_torchs_losses(trained: Path, zero: int, precision: str) -> None:
    compare_curves(trained, zero, precision, plain_curve(model(), read, OBJECTIVE))


@pytest.mark.parametrize(("zero", "precision"), CELLS)
def test_fixed_places_stay_to_the_last_bit_and_are_saved(trained: Path, zero: int, precision: str) -> None:
    held = [int((trained / f"{zero}-{precision}-{rank}.held").read_text()) for rank in (0, 1)]
    assert sum(held) == (2 if zero == 0 else 1) * 17 * 32
