"""Each alert fires once when its fault is caused in a real run, and none in a run that is well; every panel fills.

One Prometheus scrapes them all, some at the same time, by the shipped files; a minute of theirs is a second here.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_server import Prometheus, prometheus, queries

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import finish, kill, progress, start, wait_for
from faults.s3_proxy import Fault, s3_proxy

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

WELL = """
version: 1
name: {name}
store: {store}
nodes:
  glyphs:
    stage: ingest
    config:
      source: {{kind: glyphs, classes: 8, images_per_class: 32, image_px: 16}}
      images_per_shard: 64
      splits: {{train: 0.8, test: 0.2}}
  digits: {{stage: ingest, config: {{source: {{kind: digits, limit: 400}}, splits: {{train: 0.8, test: 0.2}}}}}}
  backbone:
    stage: pretrain
    needs: {{shards: glyphs, probes: [digits], watch: [glyphs]}}
    config:
      model: {{variant: {{layers: 2, width: 32, mlp: 64, heads: 2, patch_px: 8}}, image_px: 16}}
      batch_images: 32
      total: 300 steps
      optimizer: {{peak_lr: 1e-3}}
      augment: {{crop: resize, resize_px: 18, flip: false}}
      precision: fp32
      evaluate: {{every: 100 steps}}
    resources: {{workers: 2, zero: 1, micro_batch: 8, checkpoint_every: 100 steps}}
  weights: {{stage: convert, needs: {{checkpoint: backbone}}, config: {{formats: [native, timm]}}}}
  transfer:
    stage: finetune
    needs: {{data: digits, weights: weights}}
    config: {{batch_images: 16, total: 6 steps, peak_lr: [0.03, 0.01], image_px: 16, crop: none, flip: false,
             seeds: [0, 1], train_per_class: 5, dev: 0.2, precision: fp32}}
  probe:
    stage: evaluate
    needs: {{data: digits, weights: weights}}
    config: {{method: fewshot, shots: [5], image_px: 16}}
  table: {{stage: report, needs: {{scores: [transfer, probe], checkpoint: backbone, weights: weights, shards: digits}}}}
"""
TRAINING = """
version: 1
name: {name}
store: {store}
nodes:
  photos: {source}
  backbone:
    stage: pretrain
    needs: {{shards: photos}}
    config:
      model: {{variant: {{layers: 1, width: 32, mlp: 32, heads: 1, patch_px: 16}}, image_px: 16}}
      batch_images: 16
      total: 200k steps
      optimizer: {{peak_lr: {peak_lr}}}
      schedule: {{kind: constant}}
      augment: {{crop: {crop}, flip: false}}
      precision: fp32
    resources: {{workers: {workers}, zero: 1, micro_batch: 8, checkpoint_every: {every}, hang_timeout_s: 600,
                max_failures: 9}}
"""
GLYPHS = "{stage: ingest, config: {source: {kind: glyphs, classes: 8, images_per_class: 32, image_px: 16}}}"
ONE_BAD = "{stage: ingest, config: {source: {kind: folder, root: %s}}}"
USUAL = {"store": "file://./runs", "peak_lr": "1e-3", "every": "200k steps", "crop": "resize, resize_px: 18"}
NOT_ON_A_CPU = "Model FLOPs utilisation (A)"


@dataclass(frozen=True)
class Runs:
    """Starts runs in a folder that Prometheus watches."""

    folder: Path

    def start(self, name: str, spec: str, env: dict[str, str] | None = None, **fields: Any) -> "Popen[str]":
        path = self.folder / f"{name}.yaml"
        path.write_text(spec.format(name=name, **{**USUAL, **fields}))
        return start("run", path, cwd=self.folder, env={"TMPDIR": str(self.folder), **(env or {})})

    def ranks(self, name: str) -> dict[int, int]:
        """Which process each rank is."""
        told = progress(self.folder / "runs" / name, "backbone").get("ranks") or []
        return {rank["rank"]: rank["pid"] for rank in told}

    def steps(self, name: str) -> int:
        return progress(self.folder / "runs" / name, "backbone").get("step") or 0


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    """In a folder with a short name: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="alerts-") as folder, prometheus(Path(folder)) as server:
        yield server


@pytest.fixture
def runs(server: Prometheus) -> Runs:
    return Runs(server.folder)


@pytest.fixture(autouse=True)
def nothing_else_fires(server: Prometheus, request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test expects, by its mark, is all that has fired in it."""
    before = server.fired()
    yield
    assert server.fired() - before == set(request.node.get_closest_marker("fires").args)


def heard(server: Prometheus, alert: str, run: str, node: str, process: "Popen[str] | None" = None) -> None:
    wait_for(f"{alert} of {run}/{node}", lambda: (alert, run, node) in server.fired(), process)


@pytest.mark.fires()
def test_a_run_that_is_well_raises_nothing_and_fills_every_panel(server: Prometheus, runs: Runs) -> None:
    finish(runs.start("well", WELL))
    wait_for("Prometheus to forget the run", lambda: not server.targets())
    empty = {title for title, query in queries().items() if not server.has_had(query)}
    assert empty == {NOT_ON_A_CPU}
    assert not server.has_had("vitpipe_no_such_series"), "an empty panel would be found"


@pytest.mark.fires(("VitpipeLossIsNotFinite", "nan", "backbone"), ("VitpipeNodeFailed", "nan", "backbone"))
def test_a_loss_that_explodes_and_the_node_that_fails_of_it(server: Prometheus, runs: Runs) -> None:
    finish(runs.start("nan", TRAINING, source=GLYPHS, peak_lr="1.0e+30", workers=1), expect=4)
    heard(server, "VitpipeLossIsNotFinite", "nan", "backbone")
    heard(server, "VitpipeNodeFailed", "nan", "backbone")


@pytest.mark.fires(("VitpipeQuarantineGrows", "slow", "photos"), ("VitpipeWaitsForData", "slow", "backbone"))
def test_a_bad_image_and_images_that_take_long_to_decode(server: Prometheus, runs: Runs, tmp_path: Path) -> None:
    draw, folder = np.random.default_rng(0), tmp_path / "photos"
    for number in range(32):
        path = folder / f"class-{number % 2}" / f"{number}.png"  # no part of a PNG is decoded without the rest
        path.parent.mkdir(parents=True, exist_ok=True)
        squares = Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8))
        squares.resize((2400, 2400), Image.Resampling.NEAREST).save(path, compress_level=1)
    (folder / "class-0" / "broken.jpg").write_bytes(b"no image")
    process = runs.start("slow", TRAINING, source=ONE_BAD % folder, workers=1, every="4 steps", crop="random_resized")
    heard(server, "VitpipeWaitsForData", "slow", "backbone", process)
    os.kill(process.pid, signal.SIGTERM)
    finish(process, expect=6)


@pytest.mark.fires(
    ("VitpipeCommitIsOld", "long", "backbone"), ("VitpipeRestartsOften", "long", "backbone"),
    ("VitpipeStepsStandStill", "long", "backbone"), ("VitpipeRunVanished", "long", ""),
)  # fmt: skip
def test_lost_ranks_no_commits_a_hung_rank_and_a_killed_driver(server: Prometheus, runs: Runs) -> None:
    process = runs.start("long", TRAINING, source=GLYPHS, workers=2)
    beside = runs.start("beside", TRAINING, source=GLYPHS, workers=1, every="50 steps")
    old = dict[int, int]()
    for _ in range(2):
        wait_for("new ranks", lambda old=old: runs.ranks("long") not in ({}, old) and runs.steps("long"), process)
        old = runs.ranks("long")
        os.kill(old[1], signal.SIGKILL)
    heard(server, "VitpipeRestartsOften", "long", "backbone", process)
    wait_for("new ranks", lambda: runs.ranks("long") not in ({}, old), process)
    heard(server, "VitpipeCommitIsOld", "long", "backbone", process)
    assert len(server.targets()) == 2, "two runs of one machine are scraped"
    os.kill(beside.pid, signal.SIGTERM)
    finish(beside, expect=6)
    os.kill(runs.ranks("long")[1], signal.SIGSTOP)
    heard(server, "VitpipeStepsStandStill", "long", "backbone", process)
    kill(process)
    heard(server, "VitpipeRunVanished", "long", "")


@pytest.mark.s3
@pytest.mark.fires(("VitpipeStorageRetries", "refused", ""))
def test_a_store_that_refuses_every_other_request(server: Prometheus, runs: Runs, s3_server: Any, s3_uri: str) -> None:
    with s3_proxy(s3_server.endpoint) as proxy:
        proxy.faults = EveryOther()
        env = {**s3_server.environment, "AWS_ENDPOINT_URL": proxy.endpoint}
        process = runs.start("refused", WELL, env, store=s3_uri)
        heard(server, "VitpipeStorageRetries", "refused", "", process)
        os.kill(process.pid, signal.SIGTERM)
        finish(process, expect=6)


class EveryOther(list[Fault]):
    """A plan that refuses one request and lets the next one pass, whoever asks."""

    asked = 0

    def __iter__(self) -> Iterator[Fault]:
        self.asked += 1
        return iter([Fault("status")] if self.asked % 2 else [])
