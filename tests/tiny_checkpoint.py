"""A committed checkpoint without a training: random weights, as one rank writes them."""

import hashlib
import json
from pathlib import Path

from inprocess import commit, make_context
from state_folder import write_weights
from tiny_vit import random_state
from torch import Tensor

from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import TaskResources
from vitpipe.stages.training.checkpoint.committed_steps import StepFile, StepManifest

STATE_FILE = "step-3/state/weights-00000.safetensors"


def commit_checkpoint(
    tmp_path: Path,
    settings: ModelSettings,
    state: dict[str, Tensor] | None = None,
    node: str = "backbone",
    objective: str = "softmax",
    named: int | None = None,
) -> Checkpoint:
    """A Checkpoint artifact of step 3 in the store that `make_context(tmp_path, ...)` makes; `named` classes of its
    head, or all, have names."""
    ctx = make_context(tmp_path, node, TaskResources())
    local = write_weights(tmp_path / "state", state or random_state(settings))
    states = [ctx.out.upload(path, f"step-3/state/{path.name}") for path in local]
    listed = tuple(StepFile(path=file.path, bytes=file.bytes, sha256=file.sha256) for file in states)
    manifest = StepManifest(
        step=3, samples_seen=12, world_size=1, zero=0, precision="fp32", micro_batch=4, files=listed, schema=2
    ).sealed()
    labels = {"id2label": {str(number): f"class {number}" for number in range(named or settings.classes or 0)}}
    told = labels | ({} if objective == "softmax" else {"objective": objective})
    files = (
        *states,
        ctx.out.put("step-3/manifest.json", manifest.encoded()),
        ctx.out.put("labels.json", json.dumps(told).encode()),
    )
    checkpoint = Checkpoint(
        files=files, folder="step-3", step=3, samples_seen=12, model=settings.model_dump(mode="json"),
        shards_sha256=(hashlib.sha256(b"shards").hexdigest(),),
    )  # fmt: skip
    committed = commit(ctx, checkpoint)
    assert isinstance(committed, Checkpoint)
    return committed
