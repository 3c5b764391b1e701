"""Any committed step of a checkpoint, its last or a kept one, opened through what vouches for it."""

import json
from pathlib import Path

import pytest
import torch
from tiny_steps import RECIPE, commit_steps, put_step
from tiny_vit import random_state, tiny

from infra.errors import IntegrityError, UsageError
from stages.artifacts import Checkpoint
from stages.training.step_weights import kept_steps, open_step


@pytest.fixture
def trained(tmp_path: Path) -> Checkpoint:
    """Step 5 of attempt a2, which went on from step 3 of a1; a3 is of another recipe."""
    put_step(tmp_path, tiny(), "a1", 3, seed=3)
    put_step(tmp_path, tiny(), "a3", 4, seed=4, header=RECIPE | {"fingerprint": "0" * 64})
    return commit_steps(*put_step(tmp_path, tiny(), "a2", 5, seed=5), tiny(), 5)


@pytest.mark.parametrize(("asked", "seed"), [(None, 5), (5, 5), (3, 3)])
def test_the_weights_are_those_of_the_step(trained: Checkpoint, tmp_path: Path, asked: int | None, seed: int) -> None:
    found = open_step(trained, tmp_path / "scratch", asked)
    wanted = random_state(tiny(), seed)
    assert set(found.shapes) == set(wanted)
    assert all(torch.equal(torch.from_numpy(found.array(name)), wanted[name]) for name in wanted)


def test_a_step_of_another_recipe_is_none_of_ours(trained: Checkpoint, tmp_path: Path) -> None:
    assert list(kept_steps(trained)) == [3, 5]
    with pytest.raises(UsageError, match="Steps 3, 5 are there"):
        open_step(trained, tmp_path / "scratch", 4)
    header = tmp_path / "store/test/net/a3/attempt.json"
    header.write_text(json.dumps(RECIPE))
    assert list(kept_steps(trained)) == [3, 4, 5], "the recipe alone kept it out"


def test_a_flipped_byte_of_a_kept_step_is_found(trained: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "store/test/net/a1/step-3/state/weights-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        open_step(trained, tmp_path / "scratch", 3)


def test_an_attempt_that_tells_no_recipe_stands_alone(tmp_path: Path) -> None:
    put_step(tmp_path, tiny(), "a1", 3, seed=3, header={"node": "net"})
    found = commit_steps(*put_step(tmp_path, tiny(), "a2", 5, seed=5, header={"node": "net"}), tiny(), 5)
    assert list(kept_steps(found)) == [5]
