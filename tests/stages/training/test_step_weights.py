"""Any committed step of a checkpoint, its last or a kept one, opened through what vouches for it."""

import json
from pathlib import Path

import pytest
import torch
from tiny_steps import RECIPE, commit_steps, put_step
from tiny_vit import random_state, tiny

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.training.checkpoint.step_weights import kept_steps, open_step


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
    with pytest.raises(UsageError, match="steps 3, 5 are there"):
        open_step(trained, tmp_path / "scratch", 4)
    header = tmp_path / "store/test/net/a3/attempt.json"
    header.write_text(json.dumps(RECIPE))
    assert list(kept_steps(trained)) == [3, 4, 5], "the recipe alone kept it out"


def test_of_a_step_that_two_attempts_made_the_newer_one_counts(tmp_path: Path) -> None:
    """a2 refused step 4 of a1 and made it again; by their names a10 would come before a2."""
    for attempt, seed in (("a1", 1), ("a2", 2), ("a2.1", 3), ("a10", 4)):
        put_step(tmp_path, tiny(), attempt, 4, seed)
    trained = commit_steps(*put_step(tmp_path, tiny(), "a11", 5, seed=5), tiny(), 5)
    assert {step: place.attempt for step, place in kept_steps(trained).items()} == {4: "a10", 5: "a11"}
    found, wanted = open_step(trained, tmp_path / "scratch", 4), random_state(tiny(), 4)
    assert all(torch.equal(torch.from_numpy(found.array(name)), wanted[name]) for name in wanted)


@pytest.mark.parametrize("content", ['{"finger', '{"fingerprint": "f", "inputs": {}, "sha256": "0"}'])
def test_a_damaged_attempt_is_told_and_its_steps_are_not_forgotten(
    trained: Checkpoint, tmp_path: Path, content: str
) -> None:
    (tmp_path / "store/test/net/a1/attempt.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"a1/attempt\.json.*Restore it from a copy"):
        open_step(trained, tmp_path / "scratch", 3)
    assert open_step(trained, tmp_path / "scratch").shapes, "the last step, which its record names, needs no attempt"


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
