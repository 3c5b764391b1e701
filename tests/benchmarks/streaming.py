"""A ZeRO-3 checkpoint of a real size to native, timm and Google files in one pass: memory, and time beside copying.

    PYTHONPATH=.:tests python -m tests.benchmarks.streaming [VARIANT [FOLDER]]

H/14, the default, needs 16 GB of memory and 30 GB of disk.

Memory is the process's own (RssAnon of /proc/self/status, sampled every 20 ms): mapped files are the page cache's. The
measured processes begin by importing this module, which therefore imports no torch.
"""

import functools
import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inprocess import commit, make_context

from vitpipe.infra.work import Rank
from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.task import WriteTask
from vitpipe.stages.convert.write import write
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.record import load_artifact
from vitpipe.stages.vit.flops import num_parameters

FORMATS = ("native", "timm", "google")
SAMPLE_S = 0.02


def main(variant: str = "H/14", folder: str | None = None) -> None:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # the ranks' freed tensors go back to the system at once
    with tempfile.TemporaryDirectory(dir=folder) as made:
        root = Path(made)
        trained = _train(root, variant)
        count = num_parameters(ModelSettings.model_validate(trained.model))
        wanted = [file.at for file in trained.files if "/state/weights-" in file.path]
        state = [root / "store" / "test" / "backbone" / at for at in wanted]
        gigabytes = sum(path.stat().st_size for path in state) / 1e9
        print(f"\n{variant}, {count:,} parameters: the weights of a ZeRO-3 checkpoint of two ranks, {gigabytes:.2f} GB")
        ours = _alone(_convert, root, trained.origin.uri if trained.origin else "")
        written = sum(file.stat().st_size for file in (root / "store/test/weights").rglob("model.*")) / 1e9
        _tell("vitpipe: verify, convert to " + ", ".join(FORMATS) + ", upload", ours, f"{written:.2f} GB written")
        shutil.rmtree(root / "local", ignore_errors=True)
        start = time.monotonic()
        for path in state:
            subprocess.run(["cp", path, root / "copy"], check=True)
            subprocess.run(["sha256sum", root / "copy"], check=True, stdout=subprocess.DEVNULL)
        copied = time.monotonic() - start
        print(f"  {copied:6.1f} s  cp, then sha256sum, of these files ({gigabytes / copied:.2f} GB/s)")
        limit = copied * (gigabytes + written) / gigabytes
        print(f"  {limit:6.1f} s  the same for all {gigabytes + written:.2f} GB that vitpipe reads and writes")
        print(f"  vitpipe takes {ours['seconds'] / limit:.2f} of it")
        shutil.rmtree(root / "store")
        _save_as_deepspeed(root, variant)
        theirs = _alone(_zero_to_fp32, root, str(root / "deepspeed"), "torch", "deepspeed.utils.zero_to_fp32")
        written = sum(file.stat().st_size for file in (root / "fp32").iterdir()) / 1e9
        _tell("DeepSpeed's zero_to_fp32 of its own files, to safetensors", theirs, f"{written:.2f} GB written")


def _train(root: Path, variant: str) -> Checkpoint:
    """Two steps on two patches of images: real engines of true size, made quickly.

    bf16, and plain SGD, which keeps no moments: conversion reads the fp32 weights alone, and more would not fit.
    Should memory not suffice, the ranks go first.
    """
    import synthetic  # with torch, as what is below
    from tiny_pretraining import context, pretrain, recipe

    shards = synthetic.shards(root, counts={"train": 8, "test": 3})
    model = {"variant": variant, "image_px": 2 * ModelSettings(variant=variant, image_px=224).sizes.patch_px}
    plain = {"kind": "sgd", "momentum": 0.0, "weight_decay": 0.0, "peak_lr": 1e-3}
    wanted = recipe(
        model=model, optimizer=plain, batch_images=2, precision="bf16", total="2 steps", augment={"crop": "none"}
    )
    Path("/proc/self/oom_score_adj").write_text("1000")
    ctx = context(root, workers=2, zero=3, micro_batch=1, checkpoint_every="2 steps")
    found = commit(ctx, pretrain(wanted, ctx, shards), stage="pretrain")
    shutil.rmtree(root / "local", ignore_errors=True)
    assert isinstance(found, Checkpoint)
    return found


def _save_as_deepspeed(root: Path, variant: str) -> None:
    """The same kind of engine, saved in DeepSpeed's own format."""
    from inprocess import InProcessCluster

    InProcessCluster(2).gang(functools.partial(_save_rank, root, variant), resources=PretrainResources(workers=2))


def _save_rank(root: Path, variant: str, rank: Rank) -> None:
    from vitpipe.stages.training.engine import Engine, EngineSettings
    from vitpipe.stages.training.optim.rules.sgd import Sgd
    from vitpipe.stages.training.sampler import DataParallelSampler
    from vitpipe.stages.vit.build import build_model
    from vitpipe.stages.vit.init import init_weights

    vit = build_model(ModelSettings(variant=variant, image_px=224, classes=3))
    init_weights(vit, seed=0)
    made = Engine(
        vit,
        Sgd(kind="sgd", momentum=0.0, peak_lr=1e-3),
        EngineSettings(3, "bf16", None, 224),
        DataParallelSampler(1, 1),
        rank,
    )
    made._engine.save_checkpoint(root / "deepspeed")


def _zero_to_fp32(root: Path, saved: str) -> None:
    import torch
    from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

    torch.set_num_threads(1)
    convert_zero_checkpoint_to_fp32_state_dict(saved, root / "fp32", safe_serialization=True)


def _convert(root: Path, uri: str) -> None:
    checkpoint = load_artifact(uri)
    assert isinstance(checkpoint, Checkpoint)
    ctx = make_context(root, "weights", ConvertResources())
    write(WriteTask(FORMATS, ConvertConfig(formats=FORMATS), checkpoint, ("red", "green", "blue"), ctx.task))
    assert "torch" not in sys.modules


def _alone(work: Callable[[Path, str], None], path: Path, text: str, *imports: str) -> dict[str, float]:
    """Seconds and peak memory of `work` in a process of its own; what imports take is told apart."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    process = context.Process(target=_measured, args=(work, path, text, imports, answers))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} ended with {process.exitcode}")
    found: dict[str, float] = answers.get()
    return found


def _measured(work: Callable[[Path, str], None], path: Path, text: str, imports: tuple[str, ...], answers: Any) -> None:
    for name in imports:
        importlib.import_module(name)
    before, peak, ended = _anonymous_mb(), [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            peak[0] = max(peak[0], _anonymous_mb())

    watcher = threading.Thread(target=sample)
    watcher.start()
    start = time.monotonic()
    try:
        work(path, text)
    finally:
        ended.set()
        watcher.join()
    answers.put({"seconds": time.monotonic() - start, "before_mb": before, "peak_mb": max(peak[0], before)})


def _anonymous_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024


def _tell(what: str, found: dict[str, float], more: str = "") -> None:
    memory = f"{found['peak_mb']:.0f} MiB of anonymous memory at most, {found['before_mb']:.0f} after the imports"
    print(f"  {found['seconds']:6.1f} s  {what}: {memory}" + (f"; {more}" if more else ""))


if __name__ == "__main__":
    main(*sys.argv[1:])
