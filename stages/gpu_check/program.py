"""The GPU check as a whole: sections one after another, each in a process and within its time; kept as they come.

Knows no torch beyond asking whether there is a GPU: a section that dies takes nobody with it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.stages.gpu_check.findings import Told, Way
from vitpipe.stages.gpu_check.report import CheckReport
from vitpipe.stages.gpu_check.sections import LACKING, SECTIONS, Section, missing

NOT_OK = 7
"""Exit code where something that must hold was not shown, as `doctor`'s."""
LOOK_S = 0.2
LEAST_S = 5.0
"""A section that has less left is not begun."""
BORROWED = 2.0
"""How many times the time that it plans with a section may take that has to show something."""
NO_GPU = (
    "no GPU here: everything below is shrunk to a CPU (tiny models, one or two steps); it shows that the check works, "
    "and measures nothing"
)


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    minutes: float = 10.0
    out: Path = Path("gpu-report")
    sections: tuple[str, ...] = ()
    """Names of sections; none are all."""
    device: str | None = None
    """`cpu` though there is a GPU; left out, the first GPU where there is one."""
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        """UsageError for a time that is none, or a peak that no GPU has."""
        if not 0 < self.minutes < 24 * 60:
            raise UsageError(f"check the GPU in {self.minutes:g} minutes", "that is no time", "give --minutes 10")
        if self.peak_flops is not None and not 1e9 <= self.peak_flops <= 1e20:
            found = "that is no peak of a GPU, in FLOP/s from 1e9 to 1e20"
            do = "give that of its data sheet: --peak-flops 989e12 for an H100"
            raise UsageError(f"check the GPU with --peak-flops {self.peak_flops:g}", found, do)


@dataclass(frozen=True)
class Limits:
    """What a section is given."""

    planned: float
    """Seconds by which it chooses what to leave out."""
    most: float
    """Seconds after which it is killed."""
    device: str
    shrunk: bool


def check(options: Options, say: Callable[[str], None]) -> CheckReport:
    """Run the sections asked for and write the report; `say` is told each line for people.

    UsageError where torch is missing. Interrupted, it leaves what it had and raises on.
    """
    device = options.device or _device()
    shrunk = not device.startswith("cuda")
    wanted = options.sections or tuple(section.name for section in SECTIONS)
    coming = [Told(one.name, one.title, one.proves, why="not begun") for one in SECTIONS]
    for told in coming:
        if told.name not in wanted:
            told.state, told.why = "not asked for", ""
    report = CheckReport(options.out, shrunk, coming)
    if shrunk:
        say(NO_GPU)
    begun, whole = time.monotonic(), options.minutes * 60
    total = sum(section.share for section in SECTIONS if section.name in wanted)
    due = 0.0
    for section, told in zip(SECTIONS, coming, strict=True):
        if section.name not in wanted:
            continue
        due += whole * section.share / total
        passed = time.monotonic() - begun
        # what must hold may take more of the others' time than it plans with: a cold disk is no fault
        limit = min(whole - passed, (due - passed) * (BORROWED if section.proves else 1))
        _section(section, told, Limits(due - passed, limit, device, shrunk), options, report, say)
    report.write()
    return report


def _section(
    section: Section,
    told: Told,
    limits: Limits,
    options: Options,
    report: CheckReport,
    say: Callable[[str], None],
) -> None:
    say(f"\n{section.title} [{section.name}]")
    if lacking := missing(section.needs):
        told.why = f"needs {', '.join(lacking)}"
    elif limits.planned < LEAST_S:
        told.why = f"no time was left: {limits.planned:.0f} s"
    else:
        with tempfile.TemporaryDirectory(prefix="vitpipe-gpu-", ignore_cleanup_errors=True) as scratch:
            way = Way(limits.device, limits.shrunk, Path(scratch), limits.planned, options.peak_flops)
            _run(section.name, way, limits.most, told, report, say)
    report.write()
    for line in report.ending(told):
        say(line)


def _run(name: str, way: Way, most: float, told: Told, report: CheckReport, say: Callable[[str], None]) -> None:
    """One section in a process of its own; killed with all that it started once its time is over."""
    rows, log = way.scratch / "rows.jsonl", report.folder / f"{name}.log"
    rows.touch()
    begun, seen = time.monotonic(), 0
    with log.open("w") as output:
        process = subprocess.Popen(
            command(name, way, rows), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while (code := process.poll()) is None and time.monotonic() - begun < most:
                seen = _news(rows, seen, told, report, say)
                time.sleep(LOOK_S)
        except BaseException:
            told.state, told.why = "cut off", "the check was ended"
            report.write()
            raise
        finally:
            _end(process)
    _news(rows, seen, told, report, say)
    told.seconds = time.monotonic() - begun
    if code is None:
        told.state, told.why = "cut off", f"its {most:.0f} s were over"
    elif code == LACKING:
        told.state, told.why = "left out", _last_line(log)
    elif code:
        told.state, told.why = "failed", f"ended with {code}: {_last_line(log)}; see {log}"
    else:
        told.state = "done"


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:300]


def command(name: str, way: Way, rows: Path) -> list[str]:
    """Spell how a section is started."""
    words = [
        sys.executable,
        "-m",
        "vitpipe.stages.gpu_check.section",
        name,
        "--device",
        way.device,
        "--rows",
        str(rows),
    ]
    words += ["--scratch", str(way.scratch), "--seconds", f"{way.seconds:.1f}"]
    words += ["--shrunk"] if way.shrunk else []
    return words + (["--peak-flops", str(way.peak_flops)] if way.peak_flops else [])


def _news(rows: Path, seen: int, told: Told, report: CheckReport, say: Callable[[str], None]) -> int:
    """Take the whole lines that are new; how many bytes have been read by now."""
    with rows.open("rb") as file:
        file.seek(seen)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    for line in data[:whole].decode().splitlines():
        before = len(told.rows)
        told.take(line)
        if len(told.rows) > before:
            for text in report.lines(told):
                say(text)
    if whole:
        report.write()
    return seen + whole


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a section and the ranks that it started: they are one process group, begun here."""
    with suppress(ProcessLookupError):  # all have ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _device() -> str:
    if missing(("torch",)):
        raise UsageError("check the GPU", "this Python has no torch", "run it with the Python that has")
    import torch  # only here, and only to ask: what has to answer first is whether it is there

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def exit_code(sections: Sequence[Told]) -> int:
    """0, or `doctor`'s 7 where something that must hold was not shown."""
    return NOT_OK if any(told.wrong for told in sections) else 0
