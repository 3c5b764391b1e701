"""Any committed step of a checkpoint, its last or a kept one, opened through what vouches for it."""

import json
from pathlib import Path

import pytest
import torch
from inprocess import commit, make_context
from tiny_vit import random_state, tiny

from infra.errors import IntegrityError, UsageError
from stages.artifacts import Checkpoint
from stages.settings import TaskResources
from stages.training.step_weights import kept_steps, open_step
from stages.training.steps import StepFile, StepManifest

RECIPE = {"fingerprint": "f" * 64, "inputs": {"shards": [{"record_sha256": "1" * 64}]}}


@pytest.fixture
def trained(tmp_path: Path) -> Checkpoint:
    """Step 5 of attempt a2, which went on from step 3 of a1; a3 is of another recipe."""
    put(tmp_path, "a1", 3, seed=3)
    put(tmp_path, "a3", 4, seed=4, header=RECIPE | {"fingerprint": "0" * 64})
    ctx, files = put(tmp_path, "a2", 5, seed=5)
    made = Checkpoint(files=files, folder="step-5", step=5, samples_seen=20, model=tiny().model_dump(mode="json"),
                      shards_sha256=())  # fmt: skip
    found = commit(ctx, made)
    assert isinstance(found, Checkpoint)
    return found


def put(tmp_path, attempt, step, seed, header=RECIPE):
    ctx = make_context(tmp_path, "net", TaskResources(), attempt=attempt, header=header)
    local = tmp_path / f"{attempt}.pt"
    torch.save({"module": random_state(tiny(), seed), "buffer_names": [], "optimizer": {}}, local)
    file = ctx.out.upload(local, f"step-{step}/state/mp_rank_00_model_states.pt")
    listed = StepFile(path=file.path, bytes=file.bytes, sha256=file.sha256)
    manifest = StepManifest(step=step, samples_seen=4 * step, world_size=1, zero=0, precision="fp32", micro_batch=4,
                            files=(listed,), schema=1).sealed()  # fmt: skip
    return ctx, (file, ctx.out.put(f"step-{step}/manifest.json", manifest.encoded()))


@pytest.mark.parametrize(("asked", "seed"), [(None, 5), (5, 5), (3, 3)])
def test_the_weights_are_those_of_the_step(trained: Checkpoint, tmp_path: Path, asked: int | None, seed: int) -> None:
    found = open_step(trained, tmp_path / "scratch", asked)
    wanted = random_state(tiny(), seed)
    assert set(found.shapes) == set(wanted)
    assert all(torch.equal(found.tensor(name), wanted[name]) for name in wanted)


def test_a_step_of_another_recipe_is_none_of_ours(trained: Checkpoint, tmp_path: Path) -> None:
    assert list(kept_steps(trained)) == [3, 5]
    with pytest.raises(UsageError, match="Steps 3, 5 are there"):
        open_step(trained, tmp_path / "scratch", 4)
    header = tmp_path / "store/test/net/a3/attempt.json"
    header.write_text(json.dumps(RECIPE))
    assert list(kept_steps(trained)) == [3, 4, 5], "the recipe alone kept it out"


def test_a_flipped_byte_of_a_kept_step_is_found(trained: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "store/test/net/a1/step-3/state/mp_rank_00_model_states.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        open_step(trained, tmp_path / "scratch", 3)


def test_an_attempt_that_tells_no_recipe_stands_alone(tmp_path: Path) -> None:
    for attempt, step in (("a1", 3), ("a2", 5)):
        ctx, files = put(tmp_path, attempt, step, seed=step, header={"node": "net"})
    made = Checkpoint(files=files, folder="step-5", step=5, samples_seen=20, model=tiny().model_dump(mode="json"),
                      shards_sha256=())  # fmt: skip
    assert list(kept_steps(commit(ctx, made))) == [5]
