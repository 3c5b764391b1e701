"""What a machine has: its GPU with driver, clocks and memory, its cores, and limits that can be measured at once."""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable

import torch

from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.sections import versions

SIDES = {False: 8192, True: 256}
"""Side of the square matrices whose product is measured, and of a shrunk check's."""
COPY_BYTES = {False: 2 << 30, True: 8 << 20}
QUERY = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.max.memory", "power.limit", "temperature.gpu")


def run(way: Way, findings: Findings) -> None:
    """Say what is here. Facts: name, memory_bytes, memory_bandwidth, watts."""

    def say(what: str, found: str) -> None:
        findings.row({"what": what, "found": found})

    say("host", f"{platform.machine()}, {_processor()}, {cores()} cores, Python {platform.python_version()}")
    said = [f"{name} {found}" for name, found in versions().items()]
    say("packages", ", ".join(said))
    if way.cuda:
        _gpu(way, findings, say)
    else:
        findings.fact("name", "CPU")
        say("GPU", "none")
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        if way.cuda or dtype == torch.float32:
            say(f"matrix product, {name}", f"{gemm_flops(way, dtype) / 1e12:.3g} TFLOP/s")
    moved = copy_bandwidth(way)
    findings.fact("memory_bandwidth", moved)
    say("copy inside its memory, bytes read and written", f"{moved / 1e9:,.0f} GB/s")
    if way.cuda:
        into = _host_bandwidth(way, "h2d")
        say("copy from the host, pinned", f"{into / 1e9:.3g} GB/s")
        _links(way, findings, say, into)
        say("copy to the host, pinned", f"{_host_bandwidth(way, 'd2h') / 1e9:.3g} GB/s")
    say("cores free for readers", str(cores()))


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _gpu(way: Way, findings: Findings, say: Callable[[str, str], None]) -> None:
    facts = torch.cuda.get_device_properties(way.device)
    findings.fact("name", facts.name.removeprefix("NVIDIA "))
    findings.fact("memory_bytes", facts.total_memory)
    count = torch.cuda.device_count()
    size = f"{facts.total_memory / 1e9:.1f} GB, {facts.multi_processor_count} multiprocessors"
    say("GPU", f"{count} x {facts.name}, compute capability {facts.major}.{facts.minor}, {size}")
    say("CUDA", f"{torch.version.cuda}, cuDNN {_cudnn()}, NCCL {_nccl()}")
    say("bf16", "in hardware" if torch.cuda.is_bf16_supported(including_emulation=False) else "emulated or none")
    for name, found in _smi().items():
        say(name, found)
        if name == "power.limit" and found.split()[0].replace(".", "").isdigit():
            findings.fact("watts", float(found.split()[0]))
    torch.zeros(1, device=way.device)
    free, total = torch.cuda.mem_get_info(way.device)
    say("memory taken before anything is trained", f"{(total - free) / 1e9:.2f} GB of {total / 1e9:.1f}")


def _links(way: Way, findings: Findings, say: Callable[[str, str], None], into: float) -> None:
    """Measure the way to the next GPU; one alone that has no NVLink would take the host's."""
    if torch.cuda.device_count() > 1:
        source = torch.zeros(COPY_BYTES[False] // 4, dtype=torch.uint8, device=way.device)
        target = torch.empty_like(source, device="cuda:1")
        speed = source.numel() / seconds_of(lambda: target.copy_(source), way)
        say("copy to the next GPU", f"{speed / 1e9:.3g} GB/s")
        findings.fact("nvlink_bytes_per_s", speed)
    elif not re.search(r"\b(V100|A[138]00|A30|[BH][1238]00|GH200|GB[23]00)\b", torch.cuda.get_device_name(way.device)):
        findings.fact("nvlink_bytes_per_s", into)


def _smi() -> dict[str, str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"nvidia-smi": "absent"}
    words = [program, "-i", "0", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    found = [cell.strip() for cell in done.stdout.strip().split(",")]
    if done.returncode or len(found) != len(QUERY):
        return {"nvidia-smi": (done.stderr or done.stdout).strip()[:200]}
    return dict(zip(QUERY, found, strict=True))


def _cudnn() -> str:
    return str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]


def _nccl() -> str:
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    except Exception as error:  # built without it
        return f"none ({type(error).__name__})"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            named = (line for line in file if line.startswith("model name"))
            return next(named, ": unnamed").partition(":")[2].strip()
    except OSError:
        return "a processor without a name"


def gemm_flops(way: Way, dtype: torch.dtype) -> float:
    """Measure FLOP/s of a large square matrix product of random numbers: the ceiling of what is trained."""
    side = SIDES[way.shrunk]
    one, other = (torch.randn(side, side, device=way.device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: one @ other, way)


def copy_bandwidth(way: Way) -> float:
    """Measure bytes read and written a second by a copy inside the device's memory."""
    source = torch.zeros(COPY_BYTES[way.shrunk], dtype=torch.uint8, device=way.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds_of(lambda: target.copy_(source), way)


def _host_bandwidth(way: Way, direction: str) -> float:
    host = torch.zeros(COPY_BYTES[way.shrunk] // 4, dtype=torch.uint8).pin_memory()
    device = torch.empty_like(host, device=way.device)
    source, target = (host, device) if direction == "h2d" else (device, host)
    return source.numel() / seconds_of(lambda: target.copy_(source, non_blocking=True), way)


def seconds_of(work: Callable[[], object], way: Way, least: int = 3, least_s: float = 0.2) -> float:
    """Time work that repeats, after two turns that count for nothing: the mean of several."""
    for _ in range(2):
        work()
    synchronise(way)
    begun, turns = time.perf_counter(), 0
    while turns < least or (time.perf_counter() - begun < least_s and not way.shrunk):
        work()
        turns += 1
        if turns % least == 0:
            synchronise(way)
    synchronise(way)
    return (time.perf_counter() - begun) / turns


def synchronise(way: Way) -> None:
    """Wait until the device has done all that it was given."""
    if way.cuda:
        torch.cuda.synchronize(way.device)
