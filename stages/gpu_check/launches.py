"""What a step asks of the device and of the host, counted by torch's profiler: launches, reads that wait, copies.

A read is a number that the host waits for; on a GPU it empties the queue of launches, and the GPU stands still.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from vitpipe.stages.gpu_check.findings import Cell, Findings, Way
from vitpipe.stages.gpu_check.peers import Stepping, peer
from vitpipe.stages.gpu_check.ranks import one_rank
from vitpipe.stages.gpu_check.training import B16, SHRUNK, Setting, build

STEPS = {False: 4, True: 2}
READS = ("aten::_local_scalar_dense",)
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Asked:
    """What was counted over some steps."""

    reads: int
    """Numbers that the host asked for, wherever they lay."""
    operations: int
    """Operations of torch that call no other: on a GPU about one launch each."""
    launches: int
    """Kernels that the host launched; 0 without a GPU."""
    copies: int
    """Copies from the device to the host."""
    waits: int
    """Times that the host waited for the device, the loop's own wait for the step before among them."""


def run(way: Way, findings: Findings) -> None:
    """Count for bare torch and for each ZeRO stage, in both precisions."""
    model, images = (SHRUNK, 4) if way.shrunk else (B16, 32)
    zeros = (1,) if way.shrunk else (1, 0, 2)
    with one_rank(way.device) as rank:
        for precision in ("fp32",) if way.shrunk else ("bf16", "fp32"):
            bare = count(way, peer("torch", Setting(model, images, precision), rank))
            _row(way, findings, f"bare torch, {precision}", bare, bare)
            for zero in zeros:
                if not way.shrunk and findings.left() < 6:
                    findings.left_out(f"ZeRO {zero} in {precision}")
                    continue
                setting = Setting(model, images, precision, zero)
                _row(
                    way,
                    findings,
                    f"ours, ZeRO {zero}, {precision}",
                    count(way, build(setting, rank, way.scratch)),
                    bare,
                )
    if way.cuda:
        findings.note("a step each; our loop waits once a step, late, for the numbers of the step before")
    else:
        findings.note("a step each; reads are calls of `.item()` and its like, of any tensor")


def count(way: Way, made: Stepping) -> Asked:
    """Profile some steps after a warm-up."""
    made.steps(1 if way.shrunk else 3)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if way.cuda else [])]
    with profile(activities=kinds) as found:
        made.steps(STEPS[way.shrunk])
    return counted(found.events() or ())


def counted(events: Iterable[FunctionEvent]) -> Asked:
    """Count what a profile holds."""
    names: Counter[str] = Counter()
    operations = copies = 0
    for event in events:
        if event.device_type == DeviceType.CPU:
            names[event.name] += 1
            operations += event.name.startswith("aten::") and not any(map(_is_operation, event.cpu_children))
        else:
            copies += "DtoH" in event.name
    return Asked(
        reads=sum(names[name] for name in READS),
        operations=operations,
        launches=sum(names[name] for name in LAUNCHES),
        copies=copies,
        waits=sum(names[name] for name in WAITS),
    )


def _is_operation(event: Any) -> bool:
    return bool(event.name.startswith("aten::"))


def _row(way: Way, findings: Findings, name: str, asked: Asked, bare: Asked) -> None:
    steps = STEPS[way.shrunk]
    cells: dict[str, Cell] = {"way": name, "operations": asked.operations / steps}
    cells["of bare torch"] = asked.operations / max(1, bare.operations)
    if way.cuda:  # of numbers that lie in the host's memory a read costs nothing: copies and waits tell
        cells["launches"] = asked.launches / steps
        cells["launches of bare torch"] = asked.launches / max(1, bare.launches)
        cells["copies to the host"], cells["waits"] = asked.copies / steps, asked.waits / steps
    else:
        cells["reads"] = asked.reads / steps
    findings.row(cells)
