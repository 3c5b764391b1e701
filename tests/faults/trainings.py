"""A training of some minutes as a user runs it, and a cluster of machines that can be lost under it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driving import PATIENCE_S, losses, progress, start, state_digests, vitpipe, wait_for

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
    resources: {{workers: {workers}, zero: 1, micro_batch: {micro_batch}, checkpoint_every: {every} steps, keep: {keep},
                hang_timeout_s: {hang_timeout_s}, ledger: true}}
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
    keep: int = 3
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

    def ledger(self) -> bytes:
        return (self.run / "backbone" / self._at("ledger.jsonl")).read_bytes()

    def before_last_attempt(self, folder: Path, workers: str) -> "Training":
        """As it stood when its last attempt began, in another folder and for so many workers."""
        shutil.copytree(self.run, folder / "runs" / "tiny")
        before = replace(self, folder=folder, workers=workers)
        shutil.rmtree(before.run / "backbone" / self._at("metrics.jsonl").split("/")[0])
        for path in ("record.json", *before.run.glob("backbone/a*/committed/done")):
            (before.run / "backbone" / path).unlink()
        return before

    def _at(self, path: str) -> str:
        record = json.loads((self.run / "backbone" / "record.json").read_text())
        return next(file["at"] for file in record["files"] if file["path"] == path)

    def steps_committed(self) -> list[str]:
        return sorted(path.parent.name for path in self.run.glob("backbone/a*/step-*/manifest.json"))

    def events(self, kind: str) -> list[str]:
        lines = vitpipe("events", self.run, "--json", cwd=self.folder).stdout.splitlines()
        return [event["text"] for event in map(json.loads, lines) if event["kind"] == kind]
