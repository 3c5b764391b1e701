"""Real trainings under real losses: what goes on ends with the numbers of a run that nobody disturbed.

Every case compares losses as hex and the SHA-256 of weights and moments with an undisturbed run of this session.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import PATIENCE_S, finish, losses, progress, signal_all, start, state_digests, vitpipe, wait_for

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1500)]

GLYPHS = """
  glyphs:
    stage: ingest
    config: {source: {kind: glyphs, classes: 8, images_per_class: 32, image_px: 16}, images_per_shard: 64}
"""
SPEC = """
version: 1
name: {name}
store: file://./runs
nodes:{glyphs}
  backbone:
    stage: pretrain
    needs: {{shards: {shards}}}
    config:
      model: {{variant: {{layers: {layers}, width: 32, mlp: 64, heads: 2, patch_px: 8}}, image_px: 16, dropout: 0.1}}
      batch_images: 32
      total: {steps} steps
      optimizer: {{peak_lr: 1e-3}}
      augment: {{crop: resize, resize_px: 18, flip: false, mixup: 0.2}}
      precision: fp32
      seed: 3
    resources: {{workers: {workers}, zero: 1, micro_batch: {micro_batch}, checkpoint_every: {every} steps, keep: 3,
                hang_timeout_s: {hang_timeout_s}}}
"""


class Machines:
    """The program `machines.py`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.environment = {"RAY_ADDRESS": self._line()}

    def do(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while self._line() != "ok":
            pass

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the machines ended"
        return line.strip()


@contextmanager
def cluster(folder: Path) -> Iterator[Machines]:
    """A head without CPUs and three machines of one."""
    with (folder / "machines.err").open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("machines.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=errors, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        try:
            machines = Machines(process)
            for _ in range(3):
                machines.do("add 1")
            yield machines
        finally:
            process.communicate(timeout=PATIENCE_S)


@dataclass(frozen=True)
class Training:
    """A run of one recipe in a folder of its own, on the shards of an undisturbed run, or making them."""

    folder: Path
    shards: str = "glyphs"
    steps: int = 500
    every: int = 50
    layers: int = 2
    micro_batch: int = 8
    workers: str = "3"
    hang_timeout_s: int = 600

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"

    @property
    def spec(self) -> Path:
        path = self.folder / "tiny.yaml"
        glyphs = GLYPHS if self.shards == "glyphs" else ""
        path.write_text(SPEC.format(name="tiny", glyphs=glyphs, **vars(self)))
        return path

    def begin(self, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Its driver, once there is a checkpoint and training goes on."""
        process = start("run", self.spec, cwd=self.folder, env=env)
        wait_for("training", lambda: self.every < self.now().get("step", 0) < self.steps - self.every, process)
        return process

    def again(self, env: Mapping[str, str] | None = None) -> None:
        vitpipe("run", self.spec, cwd=self.folder, env=env)

    def now(self) -> dict[str, Any]:
        return progress(self.run, "backbone")

    def pid(self, rank: int) -> int:
        return next(one["pid"] for one in self.now()["ranks"] if one["rank"] == rank)

    def result(self) -> tuple[list[tuple[int, str]], dict[str, str]]:
        return losses(self.run), state_digests(self.run)

    def steps_committed(self) -> list[str]:
        return sorted(path.parent.name for path in self.run.glob("backbone/a*/step-*/manifest.json"))

    def events(self, kind: str) -> list[str]:
        lines = vitpipe("events", self.run, "--json", cwd=self.folder).stdout.splitlines()
        return [event["text"] for event in map(json.loads, lines) if event["kind"] == kind]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Nothing happens to it."""
    training = Training(tmp_path_factory.mktemp("calm"))
    training.again()
    return training


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Nothing happens to it either; it lasts for minutes."""
    training = Training(tmp_path_factory.mktemp("slow"), steps=900, layers=8, micro_batch=1)
    training.again()
    return training


@pytest.fixture
def rough(calm: Training, tmp_path: Path) -> Training:
    return Training(tmp_path, shards=f"file://{calm.run}/glyphs")


def test_a_rank_that_stands_still(calm: Training, tmp_path: Path) -> None:
    rough = Training(tmp_path, shards=f"file://{calm.run}/glyphs", hang_timeout_s=20)
    process = rough.begin()
    os.kill(rough.pid(1), signal.SIGSTOP)
    finish(process)
    assert rough.result() == calm.result()
    assert len(rough.events("rank_lost")) == 1 and rough.events("resumed")
    assert "most recent call first" in vitpipe("logs", rough.run, "backbone", cwd=tmp_path).stdout


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(second: signal.Signals, calm: Training, rough: Training) -> None:
    """One rank stands still, so that the first signal alone would have to wait for its grace."""
    process = rough.begin()
    stopped = rough.pid(1)
    os.kill(stopped, signal.SIGSTOP)
    try:
        os.kill(process.pid, signal.SIGTERM)
        wait_for("the wish to stop", lambda: (rough.run / "stop.json").exists(), process)
        before = rough.steps_committed()
        os.kill(process.pid, second)
        done = finish(process, expect=6)
    finally:
        wait_for("the end of the rank", lambda: not _continued(stopped))
    assert "did not end within" not in done.stderr and not rough.events("failed")
    assert before and rough.steps_committed() == before
    rough.again()
    assert rough.result() == calm.result()


def test_sigterm_to_everybody(calm: Training, rough: Training) -> None:
    process = rough.begin()
    before = rough.steps_committed()
    signal_all(process, signal.SIGTERM)
    finish(process, expect=6)
    assert rough.steps_committed() > before, "a checkpoint was committed on the way out"
    rough.again()
    assert rough.result() == calm.result()


def test_one_of_three_machines_is_lost(calm: Training, rough: Training) -> None:
    with cluster(rough.folder) as machines:
        process = rough.begin(machines.environment)
        machines.do("lose 1")
        machines.do("add 1")
        finish(process)
    assert rough.result() == calm.result()
    assert len(rough.events("rank_lost")) == 1


def test_the_head_is_lost(calm: Training, rough: Training) -> None:
    with cluster(rough.folder) as machines:
        process = rough.begin(machines.environment)
        machines.do("lose-head")
        done = finish(process, expect=4)
        vitpipe("run", rough.spec, cwd=rough.folder, env=machines.environment, expect=7)
    assert "The cluster is gone" in done.stderr and "Run the same command again, on a new cluster" in done.stderr
    with cluster(rough.folder) as machines:
        rough.again(machines.environment)
    assert rough.result() == calm.result()
    assert [one for one in rough.events("resumed") if "from step" in one]


def test_a_gang_shrinks_and_grows_again(slow: Training, tmp_path: Path) -> None:
    """On fewer ranks sums have another order, so losses are close, and every step stands once."""
    rough = replace(slow, folder=tmp_path, shards=f"file://{slow.run}/glyphs", workers="[1, 3]")
    sizes = []
    with cluster(rough.folder) as machines:
        process = rough.begin(machines.environment)
        for what, size in (("lose 1", 2), ("add 1", 3)):
            machines.do(what)
            wait_for(f"{size} ranks", lambda size=size: len(rough.now().get("ranks", [])) == size, process)
            sizes.append(size)
        finish(process)
    assert sizes == [2, 3] and rough.events("resized")[-1].startswith("2 ranks become 3")
    ours, theirs = losses(rough.run), losses(slow.run)
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert float.fromhex(one) == pytest.approx(
            float.fromhex(other), rel=2e-5 * slow.steps / 6
        )  # as in tests/distributed/test_elastic_resume.py


def _continued(pid: int) -> bool:
    """Whether a process that was stopped is still there; it hears what it missed."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
