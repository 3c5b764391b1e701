"""Step time, images a second, utilisation and peak memory at the paper's models, ours beside the peers and the plan.

Out of memory is a row. Each case stands by itself; what there was no time for is named.
"""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from vitpipe.infra.work import Rank
from vitpipe.stages.gpu_check.findings import Cell, Findings, Way
from vitpipe.stages.gpu_check.machine import gemm_flops, synchronise
from vitpipe.stages.gpu_check.peers import PEERS, Stepping, peer
from vitpipe.stages.gpu_check.ranks import one_rank
from vitpipe.stages.gpu_check.sections import missing
from vitpipe.stages.gpu_check.training import B16, H14, L16, SHRUNK, Setting, Trained, build
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.pretrain.estimate import memory_bytes
from vitpipe.stages.vit.flops import num_parameters, train_flops_per_image

MODELS, MICRO_BATCHES, MIDDLE = (B16, L16, H14), (32, 64, 128, 256), 128
OURS = "ours"
WARM_STEPS, MOST_STEPS, LEAST_S, SLOW_S = 2, 20, 1.0, 2.0
CASE_S = {False: 5.0, True: 40.0}
"""What a case may take, compiled or not; with less left it is not begun."""
DRAWN_A_SECOND = 60e6
"""Parameters that one core draws for a new model, about."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    who: str
    setting: Setting

    def __str__(self) -> str:
        """In words, for what was not measured."""
        told = self.setting
        compiled = ", compiled" if told.compiled else ""
        return f"{self.who} {told.model.name} x {told.micro_batch} {told.precision}{compiled}"


def cases() -> Iterator[Case]:
    """All that is worth measuring, the most worth first; neighbours that share an engine stand together."""
    for compiled in (False, True):
        for model in MODELS:
            for images in MICRO_BATCHES if not compiled else (MIDDLE,):
                yield Case(OURS, Setting(model, images, compiled=compiled))
    for model in MODELS:
        yield from (Case(name, Setting(model, MIDDLE)) for name in PEERS)
    for model in MODELS:
        yield from (Case(name, Setting(model, MIDDLE, compiled=True)) for name in ("torch", "timm"))
    for model in MODELS:
        yield Case(OURS, Setting(model, MIDDLE, zero=0))
    for images in MICRO_BATCHES:
        yield from (Case(OURS, Setting(model, images, compiled=True)) for model in MODELS if images != MIDDLE)
    for model in MODELS:
        yield from (Case(OURS, Setting(model, images, "fp32")) for images in MICRO_BATCHES)
        yield from (Case(name, Setting(model, 64, "fp32")) for name in PEERS)
        yield Case(OURS, Setting(model, 64, "fp32", compiled=True))


def shrunk_cases() -> Iterator[Case]:
    """One case a way to build one."""
    for name in (OURS, *PEERS):
        yield Case(name, Setting(SHRUNK, 4, "fp32"))
    yield Case(OURS, Setting(SHRUNK, 8, "fp32"))


def run(way: Way, findings: Findings) -> None:
    """Measure the cases in order of worth. Facts: peak_flops, and the best utilisation of each model."""
    limits = {name: gemm_flops(way, DTYPES[name]) for name in (["bf16", "fp32"] if way.cuda else ["fp32"])}
    peak = way.peak_flops or limits.get("bf16", limits["fp32"])
    findings.fact("peak_flops", peak)
    stated = "the vendor's dense bf16" if way.peak_flops else "a matrix product measured here"
    findings.fact("peak is", f"peak_flops is {stated}")
    findings.note(f"utilisation is of {peak / 1e12:.4g} TFLOP/s, {stated}; of GEMM is of the precision's own product")
    with one_rank(way.device) as rank:
        bench = Bench(way, findings, rank, limits, peak)
        for case in shrunk_cases() if way.shrunk else cases():
            bench.measure(case)


class Bench:
    """Measures cases one after another; an engine is kept while the next case can use it."""

    def __init__(self, way: Way, findings: Findings, rank: Rank, limits: dict[str, float], peak: float) -> None:
        self._way, self._findings, self._rank, self._limits, self._peak = way, findings, rank, limits, peak
        self._kept: tuple[Case, Stepping] | None = None
        self._full: set[Case] = set()
        self._best: dict[str, float] = {}

    def measure(self, case: Case) -> None:
        """Add the row of one case. What spoils the device is raised; any other error is the row."""
        if case.who == "timm" and missing(("timm",)):
            self._findings.left_out(str(case), "timm is not installed")
        elif not self._way.shrunk and self._findings.left() < _needed_s(case):
            self._findings.left_out(str(case))
        elif replace(case, setting=replace(case.setting, micro_batch=0)) in self._full:
            self._findings.row(self._head(case) | {"images/s": "out of memory at less"})
        else:
            try:
                self._findings.row(self._head(case) | self._cells(case))
            except torch.OutOfMemoryError:
                self._full.add(replace(case, setting=replace(case.setting, micro_batch=0)))
                self._findings.row(self._head(case) | {"images/s": "out of memory"})
                self._drop()
            except Exception as error:
                self._drop()
                synchronise(self._way)  # raises again where the device itself is spoiled
                words = " ".join(f"{type(error).__name__}: {error}".split())
                self._findings.row(self._head(case) | {"images/s": words[:120]})

    def _head(self, case: Case) -> dict[str, Cell]:
        told = case.setting
        zero = f", ZeRO {told.zero}" if case.who in (OURS, "DeepSpeed") else ""
        way = f"{told.precision}{zero}{', compiled' if told.compiled else ''}"
        return {"model": told.model.name, "images": told.micro_batch, "who": case.who, "way": way}

    def _cells(self, case: Case) -> dict[str, Cell]:
        setting = case.setting
        made = self._made(case)
        if self._way.cuda:
            torch.cuda.reset_peak_memory_stats(self._way.device)
        seconds = self._seconds(made)
        speed, flops = setting.micro_batch / seconds, train_flops_per_image(setting.settings)
        used = speed * flops / self._peak
        if case.who == OURS and setting.precision == "bf16" and self._way.cuda:
            self._tell(setting, used)
        own = speed * flops / self._limits[setting.precision] if setting.precision in self._limits else None
        peak, kept = self._memory() if self._way.cuda else (None, None)
        plan = memory_bytes(setting.config, setting.resources, setting.settings) / 1e9 if case.who == OURS else None
        return {
            "images/s": speed,
            "ms a step": 1000 * seconds,
            "MFU": round(used, 4) if setting.precision == "bf16" else None,
            "of GEMM": None if own is None else round(own, 4),
            "peak GB": peak,
            "kept GB": kept,
            "plan GB": plan,
            "plan / peak": None if plan is None or peak is None else plan / peak,
        }

    def _memory(self) -> tuple[float, float]:
        """GB that were needed at most, CUDA's context among them, and that torch's allocator has taken for it."""
        free, total = torch.cuda.mem_get_info(self._way.device)
        context = total - free - torch.cuda.memory_reserved(self._way.device)
        device = self._way.device
        needed = (torch.cuda.max_memory_allocated(device) + context) / 1e9
        return needed, (torch.cuda.max_memory_reserved(device) + context) / 1e9

    def _tell(self, setting: Setting, used: float) -> None:
        """Keep the best utilisation of a model as a run has it by default: compiled only where that is the default."""
        by_default = bool(PretrainResources.model_fields["compile"].default)
        name = setting.model.name
        if setting.compiled == by_default and used > self._best.get(name, 0.0):
            self._best[name] = used
            self._findings.fact(f"utilisation {name}", used)

    def _made(self, case: Case) -> Stepping:
        if self._kept is not None:
            before, made = self._kept
            same = replace(case.setting, micro_batch=before.setting.micro_batch) == before.setting
            if same and case.who == before.who == OURS and not case.setting.compiled and isinstance(made, Trained):
                self._kept = (case, made.with_micro_batch(case.setting.micro_batch))
                return self._kept[1]
        self._drop()
        if case.setting.compiled:
            torch._dynamo.reset()
        ours = case.who == OURS
        made = build(case.setting, self._rank, self._way.scratch) if ours else peer(case.who, case.setting, self._rank)
        self._kept = (case, made)
        return made

    def _drop(self) -> None:
        self._kept = None
        gc.collect()
        if self._way.cuda:
            torch.cuda.empty_cache()

    def _seconds(self, made: Stepping) -> float:
        """Mean seconds of a step, of as many as make a second; of slow ones the second alone."""
        first = _timed(made, 1)
        if self._way.shrunk:
            return first
        if first > SLOW_S and (second := _timed(made, 1)) > SLOW_S:
            return second
        made.steps(WARM_STEPS)
        return _timed(made, max(2, min(MOST_STEPS, round(LEAST_S / _timed(made, 1)))))


def _needed_s(case: Case) -> float:
    return CASE_S[case.setting.compiled] + num_parameters(case.setting.settings) / DRAWN_A_SECOND


def _timed(made: Stepping, count: int) -> float:
    begun = time.perf_counter()
    made.steps(count)
    return (time.perf_counter() - begun) / count
