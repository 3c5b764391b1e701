"""Committed steps of a training without one: random weights, as one rank writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inprocess import commit, make_context
from state_folder import write_weights
from tiny_vit import random_state

from vitpipe.stages.artifacts import Checkpoint, File
from vitpipe.stages.contract import StageContext
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import TaskResources
from vitpipe.stages.training.checkpoint.committed_steps import StepFile, StepManifest

RECIPE = {"fingerprint": "f" * 64, "inputs": {"shards": [{"record_sha256": "1" * 64}]}}


def put_step(
    tmp_path: Path,
    settings: ModelSettings,
    attempt: str,
    step: int,
    seed: int,
    header: Mapping[str, Any] = RECIPE,
    node: str = "net",
) -> tuple[StageContext, tuple[File, ...]]:
    """A step of an attempt that followed the recipe of `header`; its context and the step's files."""
    ctx = make_context(tmp_path, node, TaskResources(), attempt=attempt, header=header)
    local = write_weights(tmp_path / attempt, random_state(settings, seed))
    files = tuple(ctx.out.upload(path, f"step-{step}/state/{path.name}") for path in local)
    listed = tuple(StepFile(path=file.path, bytes=file.bytes, sha256=file.sha256) for file in files)
    manifest = StepManifest(
        step=step, samples_seen=4 * step, world_size=1, zero=0, precision="fp32", micro_batch=4, files=listed,
        schema=2,
    ).sealed()  # fmt: skip
    return ctx, (*files, ctx.out.put(f"step-{step}/manifest.json", manifest.encoded()))


def commit_steps(ctx: StageContext, files: tuple[File, ...], settings: ModelSettings, step: int) -> Checkpoint:
    """The artifact whose last step is `step`."""
    made = Checkpoint(
        files=files, folder=f"step-{step}", step=step, samples_seen=4 * step, model=settings.model_dump(mode="json"),
        shards_sha256=(),
    )  # fmt: skip
    found = commit(ctx, made, stage="pretrain")
    assert isinstance(found, Checkpoint)
    return found
