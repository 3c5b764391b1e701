"""A training as a user runs it whose temporary folder is full for a while, or for good, or left by killed drivers."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import SmallDisk, small_disk

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import finish, kill, progress, start, wait_for
from trainings import Training

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1500)]

LINES = 10
"""Of terminal output, at most."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Nothing happens to it."""
    training = Training(tmp_path_factory.mktemp("calm"), workers="2")
    training.again()
    return training


@pytest.fixture
def rough(calm: Training, tmp_path: Path) -> Training:
    return Training(tmp_path, shards=f"file://{calm.run}/glyphs", workers="2")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "scratch", "40m") as made:
        yield made


@pytest.fixture
def env(disk: SmallDisk) -> Iterator[dict[str, str]]:
    """Scratch on the small disk, Ray's own folder elsewhere: its sockets' paths have to be short."""
    ray = tempfile.mkdtemp(dir="/tmp", prefix="ray-")
    yield {"TMPDIR": str(disk.path), "RAY_TMPDIR": ray}
    shutil.rmtree(ray, ignore_errors=True)


def lines(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """But for those that come every half a minute."""
    printed = f"{done.stdout}{done.stderr}".splitlines()
    return [line for line in printed if not re.match(r"[\d:]{8} backbone: ", line)]


def test_room_is_made_while_it_trains(calm: Training, rough: Training, disk: SmallDisk, env: dict[str, str]) -> None:
    process = rough.begin(env)
    disk.fill()
    wait_for("a save that fails", lambda: rough.events("checkpoint_failed"), process)
    failed_at = rough.now()["step"]
    disk.make_room()
    done = finish(process)
    assert failed_at < rough.steps and rough.result() == calm.result() and rough.ledger() == calm.ledger()
    assert "checkpoint_failed: step" in done.stdout and str(disk.path) in done.stdout
    assert len(lines(done)) <= LINES, done.stdout + done.stderr


def test_a_disk_that_stays_full(rough: Training, disk: SmallDisk, env: dict[str, str]) -> None:
    process = start("run", rough.spec, "nodes.backbone.resources.last_save_wait_s=8", cwd=rough.folder, env=env)
    wait_for("training", lambda: rough.every < rough.now().get("step", 0), process)
    disk.fill()
    done = finish(process, expect=7)
    assert str(disk.path) in done.stderr and "No space left" in done.stderr
    assert rough.now()["step"] == rough.steps, "it trained to the end"
    assert len(lines(done)) <= LINES, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    disk.make_room()
    rough.again(env)


def test_what_a_killed_driver_left_is_gone_after_the_next(
    rough: Training, disk: SmallDisk, env: dict[str, str]
) -> None:
    """The next one leaves its own, for the one after it: as much as before, whoever was killed how often."""

    def left() -> set[str]:
        folders = [*Path(env["RAY_TMPDIR"], "ray").glob("session_2*"), *Path(env["RAY_TMPDIR"]).rglob("pymp-*")]
        return {str(path) for path in folders}

    first = rough.begin(env)
    kill(first)
    before = left()
    assert any("pymp-" in name for name in before) and any("session_2" in name for name in before)
    wait_for("the end of its ranks", lambda: progress(rough.run, "backbone") == progress(rough.run, "backbone"))
    second = start("run", rough.spec, cwd=rough.folder, env=env)
    finish(second)
    assert not before & left() and len(left()) <= len(before)
    assert not [path for path in disk.path.rglob("*") if "pymp-" in path.name]
