"""Drive vitpipe as a user does: a process of its own, an exit code, a store to look into."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 400  # how long anything may take on a busy machine before the test says it hangs
ENV = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}

SPEC = """
version: 1
name: {name}
store: {store}
nodes:
  glyphs:
    stage: ingest
    config:
      source: {{kind: glyphs, classes: 8, images_per_class: 32, image_px: 16}}
      images_per_shard: 64
  digits: {{stage: ingest, config: {{source: {{kind: digits, limit: 400}}}}}}
  backbone:
    stage: pretrain
    needs: {{shards: glyphs}}
    config:
      model: {{variant: {{layers: 2, width: 32, mlp: 64, heads: 2, patch_px: 8}}, image_px: 16, dropout: 0.1}}
      batch_images: 32
      total: {steps} steps
      optimizer: {{peak_lr: 1e-3}}
      augment: {{crop: resize, resize_px: 18, flip: false}}
      precision: fp32
      seed: 3
    resources: {{workers: 2, zero: {zero}, micro_batch: 8, checkpoint_every: {every} steps, keep: 3}}
"""

TRANSFER = """
  weights: {stage: convert, needs: {checkpoint: backbone}, config: {formats: [native, timm]}}
  transfer:
    stage: finetune
    needs: {data: digits, weights: weights}
    config: {batch_images: 16, total: 6 steps, peak_lr: [0.03, 0.01], image_px: 16, crop: none, flip: false,
             seeds: [0, 1], train_per_class: 5, dev: 0.2, precision: fp32}
  probe: {stage: evaluate, needs: {data: digits, weights: weights}, config: {method: fewshot, shots: [5], image_px: 16}}
  table: {stage: report, needs: {scores: [transfer, probe], checkpoint: backbone, weights: weights, shards: digits}}
"""


def write_spec(
    folder: Path,
    name: str,
    *,
    store: str = "file://./runs",
    steps: int = 12,
    every: int = 10,
    zero: int = 1,
    transfer: bool = False,
) -> Path:
    """A YAML in the quickstart's shape at a tiny size."""
    path = folder / f"{name}.yaml"
    path.write_text(
        SPEC.format(name=name, store=store, steps=steps, every=every, zero=zero) + (TRANSFER if transfer else "")
    )
    return path


def start(*args: object, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin a verb in a process group of its own; its output goes to files that `finish` reads."""
    log = cwd / f"drive-{time.monotonic_ns()}"
    with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "vitpipe.pipeline", *map(str, args)],
            cwd=cwd,
            env={**ENV, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    process.log = log  # type: ignore[attr-defined]
    return process


def finish(process: subprocess.Popen[str], *, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Wait for its end; what it printed. Fails with all of it when the exit code is not the expected one."""
    try:
        code = process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
    log: Path = process.log  # type: ignore[attr-defined]
    done = subprocess.CompletedProcess(
        process.args, code, log.with_suffix(".out").read_text(), log.with_suffix(".err").read_text()
    )
    assert expect is None or code == expect, f"{process.args} ended with {code}\n{done.stdout}\n{done.stderr}"
    return done


def vitpipe(
    *args: object, cwd: Path, expect: int | None = 0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return finish(start(*args, cwd=cwd, env=env), expect=expect)


def status(run: object, cwd: Path, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`status --json` of a run; no nodes before its first commit to the store."""
    done = vitpipe("status", run, "--json", cwd=cwd, env=env, expect=None)
    return json.loads(done.stdout) if done.returncode == 0 else {"nodes": []}


def wait_for(what: str, condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Poll until the condition holds; its value. Fails when the process ends or patience does."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        if process is not None and process.poll() is not None:
            finish(process, expect=0)
            raise AssertionError(f"the process ended before {what}")
        time.sleep(0.3)
    raise AssertionError(f"waited {PATIENCE_S} s for {what}")


def progress(run: Path, node: str) -> dict[str, Any]:
    """What a running node last said of itself; empty before its first word."""
    path = run / node / "progress.json"
    return json.loads(path.read_text()) if path.exists() else {}


def losses(run: Path, node: str = "backbone") -> list[tuple[int, str]]:
    """(step, loss as float.hex) of the committed metrics.jsonl, in order."""
    record = json.loads((run / node / "record.json").read_text())
    at = next(file["at"] for file in record["files"] if file["path"] == "metrics.jsonl")
    lines = [json.loads(line) for line in (run / node / at).read_text().splitlines()]
    return [(line["step"], line["loss_hex"]) for line in lines]


def state_digests(run: Path, node: str = "backbone") -> dict[str, str]:
    """SHA-256 of every file of the last step: weights, moments, and all."""
    record = json.loads((run / node / "record.json").read_text())
    folder = record["output"]["folder"]
    return {file["path"]: file["sha256"] for file in record["files"] if file["path"].startswith(f"{folder}/state/")}


def signal_all(process: subprocess.Popen[str], number: int) -> None:
    """As systemd, Slurm and a terminal do: to the process group, and to every process that came of it."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver alone; what it had started has to notice by itself."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
