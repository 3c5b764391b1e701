"""A recipe that takes seconds on a CPU: 16 px, two layers, ten steps."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inprocess import InProcessCluster, make_context

from vitpipe.stages.artifacts import Artifact, Checkpoint
from vitpipe.stages.contract import Fence, Inputs, StageContext
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.run import run

RECIPE: dict[str, Any] = {
    "model": {"variant": {"layers": 2, "width": 32, "mlp": 64, "heads": 2, "patch_px": 8}, "image_px": 16,
              "dropout": 0.1, "stochastic_depth": 0.1},
    "optimizer": {"peak_lr": 3e-3},
    "batch_images": 24,
    "total": "10 steps",
    "precision": "fp32",
}  # fmt: skip
RESOURCES: dict[str, Any] = {"micro_batch": 8, "checkpoint_every": "3 steps", "keep": 10}


@dataclass
class StopsAt:
    """A fence that asks for the end at its n-th question, one question a step."""

    step: int
    asked: int = 0

    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        self.asked += 1
        return "SIGTERM" if self.asked == self.step else None


@dataclass
class KillsAt(StopsAt):
    """A fence that kills its process at the n-th question, one question a step."""

    def stopping(self) -> str | None:
        if super().stopping():
            os.kill(os.getpid(), signal.SIGKILL)
        return None


def recipe(**changes: Any) -> PretrainConfig:
    return PretrainConfig.model_validate(RECIPE | changes)


def context(
    tmp_path: Path,
    attempt: str = "a1",
    earlier: tuple[str, ...] = (),
    fence: Fence | None = None,
    node: str = "backbone",
    store_uri: str | None = None,
    **resources: Any,
) -> StageContext:
    wanted = PretrainResources.model_validate(RESOURCES | resources)
    ctx = make_context(
        tmp_path, node, wanted, InProcessCluster(wanted.workers), attempt=attempt, earlier=earlier,
        store_uri=store_uri,
    )  # fmt: skip
    return ctx if fence is None else replace(ctx, fence=fence, out=replace(ctx.out, fence=fence))


def pretrain(config: PretrainConfig, ctx: StageContext, shards: Artifact, **inputs: Artifact) -> Checkpoint:
    named = {"shards": (shards,), **{name: (artifact,) for name, artifact in inputs.items()}}
    return run(config, Inputs(named), ctx)
