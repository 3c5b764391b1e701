"""Two DeepSpeed steps of L/16 in fp32 and of H/14 in bf16 at their true size, their memory beside the plan's."""

import functools
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inprocess
import pytest
import torch

from infra.work import Rank
from stages.images.batch import Batch
from stages.pretrain.config import PretrainConfig, PretrainResources
from stages.pretrain.estimate import memory_bytes
from stages.training.deal import Deal
from stages.training.engine import Engine, EngineSettings
from stages.training.loop import Course, train
from stages.training.losses import loss_fn
from stages.training.optimisers import build
from stages.vit.build import build_model
from stages.vit.init import init_weights

NEEDED_BYTES = 18e9


def config_of(variant: str, precision: str) -> PretrainConfig:
    fields: dict[str, Any] = {
        "model": {"variant": variant, "image_px": 224, "classes": 1000}, "batch_images": 1, "total": "2 steps",
        "precision": precision,
    }  # fmt: skip
    return PretrainConfig.model_validate(fields)


def two_steps(folder: Path, variant: str, precision: str, rank: Rank) -> None:
    """Leave losses, gradient norms, whether a weight moved, and the bytes that came on top of torch and DeepSpeed."""
    import deepspeed  # noqa: F401  # what its import takes is not the model's

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = config_of(variant, precision)
    Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out, this process goes first
    torch.set_num_threads(2)
    vit = build_model(config.model)
    init_weights(vit, seed=0)
    made = Engine(vit.train(), build(vit, config.optimizer), EngineSettings(1, precision, 1.0, 224), Deal(1, 1), rank)
    watched = vit.blocks[0].mlp.fc1.weight  # behind a zero head it moves from the second step on
    first = watched.detach().clone()
    course = Course(0, 0, 2, lambda step: 1e-3, lambda step: False, lambda: None)
    facts = list(train(made, _images(), loss_fn(config.objective), course))
    found = {
        "losses": [one.loss for one in facts], "norms": [one.grad_norm for one in facts],
        "moved": not torch.equal(first, watched), "seconds": [one.seconds for one in facts],
        "bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
    }  # fmt: skip
    (folder / "found.json").write_text(json.dumps(found))


def _images() -> Iterator[Batch]:
    for position in range(2):
        images = torch.randint(0, 256, (1, 3, 224, 224), generator=torch.Generator().manual_seed(position))
        yield Batch(images.to(torch.uint8), torch.tensor([position]), torch.ones(1), torch.tensor([position]))


def free_bytes() -> float:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024.0 * float(lines["MemAvailable"].split()[0])


@pytest.mark.drill
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("variant", "precision"), [("L/16", "fp32"), ("H/14", "bf16")])
def test_real_steps_at_true_size_stay_near_the_planned_memory(tmp_path: Path, variant: str, precision: str) -> None:
    if free_bytes() < NEEDED_BYTES:
        pytest.skip(f"needs {NEEDED_BYTES / 1e9:.0f} GB of free memory, there are {free_bytes() / 1e9:.1f}")
    inprocess._spawn(functools.partial(two_steps, tmp_path, variant, precision), 1, str(tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    config = config_of(variant, precision)
    planned = memory_bytes(config, PretrainResources(micro_batch=1), config.model)
    print(f"\n{variant} {precision}: {found}, planned {planned / 1e9:.2f} GB, peak {found['bytes'] / 1e9:.2f} GB")
    assert found["moved"] and len(found["losses"]) == 2
    assert found["losses"][0] == pytest.approx(torch.tensor(1000.0).log().item(), rel=1e-3)  # a zero head
    assert 0.8 * planned < found["bytes"] < 1.4 * planned
