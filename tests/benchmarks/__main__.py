"""`make bench`: measured tables, ours beside a peer and the machine's own limit, interleaved in one process.

Some of them alone: `PYTHONPATH=.:tests python -m tests.benchmarks steps shuffling`.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import timm
import torch

from tests.benchmarks import (
    ahead,
    checkpoints,
    millions,
    opening,
    queueing,
    reading,
    scaling,
    shuffling,
    streaming,
    watching,
    writing,
)
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.flops import train_flops_per_image
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.model import ViT

ROUNDS = 6
STEPS = (("B/16", "vit_base_patch16_224", 4), ("L/16", "vit_large_patch16_224", 1))
"""Variant, timm's name for it, images of a step."""
MOVED = 0.10
"""A calibration kernel that moved by more makes a run void."""


def main(asked: Sequence[str]) -> None:
    """All sections, or those asked for, in the order in which they stand here."""
    with tempfile.TemporaryDirectory() as photographs:
        sections: dict[str, Callable[[], None]] = {
            "steps": vit_steps,
            "shuffling": shuffling.main,
            "queueing": queueing.main,
            "opening": opening.main,
            "reading": partial(reading.main, photographs),
            "ahead": ahead.main,
            "scaling": partial(scaling.main, photographs),
            "writing": partial(writing.main, photographs),
            "millions": millions.main,
            "checkpoints": checkpoints.main,
            "watching": watching.main,
            "streaming": partial(streaming.main, "B/16"),  # H/14 by `python -m tests.benchmarks.streaming`
        }
        unknown = set(asked) - set(sections)
        if unknown:
            raise SystemExit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
        for name, run in sections.items():
            if not asked or name in asked:
                run()


def vit_steps() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, timm {timm.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread")
    for variant, peer, batch in STEPS:
        for dtype in (torch.float32, torch.bfloat16):
            vit_step(variant, peer, batch, dtype)


def vit_step(variant: str, peer: str, batch: int, dtype: torch.dtype) -> None:
    """Forward and backward in one type, ours and timm's with equal weights; GEMM in that type as the limit."""
    settings = ModelSettings(variant=variant, image_px=224, classes=1000)
    ours = ViT(settings)
    init_weights(ours, seed=0)
    theirs = timm.create_model(peer)
    theirs.load_state_dict(ours.state_dict())
    images, labels = (torch.rand(batch, 3, 224, 224) * 2 - 1).to(dtype), torch.arange(batch)

    def step(model: torch.nn.Module) -> Callable[[], None]:
        model.to(dtype)

        def run() -> None:
            model.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(images).float(), labels).backward()

        return run

    shape = (197 * batch, settings.sizes.width, settings.sizes.mlp)
    before = _gemm_seconds(shape, dtype)
    seconds = _interleaved({"vitpipe": step(ours), "timm": step(theirs)})
    after = _gemm_seconds(shape, dtype)
    moved = abs(after / before - 1)
    gflop = batch * train_flops_per_image(settings) / 1e9
    print(f"\nViT-{variant} step, batch {batch}, {dtype}, CPU seconds, minimum of {ROUNDS}")
    for name, best in seconds.items():
        print(f"  {name:8} {best:6.2f} s  {gflop / best:6.1f} GF/s  {best / seconds['timm']:5.2f} of timm")
    print(f"  {'limit':8} GEMM of the MLP's shape: {_gemm_gflop(shape) / min(before, after):.1f} GF/s")
    print(f"  calibration moved {moved:.1%}{': VOID, run it again on a quiet machine' if moved > MOVED else ''}")


def _gemm_gflop(shape: tuple[int, int, int]) -> float:
    return 20 * 2 * math.prod(shape) / 1e9


def _gemm_seconds(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """CPU seconds of 20 products, minimum of 5."""
    left, right = torch.randn(*shape[:2]).to(dtype), torch.randn(*shape[1:]).to(dtype)

    def products() -> None:
        for _ in range(20):
            left @ right

    return min(_cpu_seconds(products) for _ in range(5))


def _interleaved(candidates: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Best CPU seconds of each, in turns that swap their order, after one warm-up round."""
    best = {name: float("inf") for name in candidates}
    for turn in range(ROUNDS + 1):
        for name in sorted(candidates, reverse=turn % 2 == 1):
            seconds = _cpu_seconds(candidates[name])
            if turn:
                best[name] = min(best[name], seconds)
    return best


def _cpu_seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main(sys.argv[1:])
