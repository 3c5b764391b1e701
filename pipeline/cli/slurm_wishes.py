"""What a person may ask of a Slurm job, read from the command line and checked before `sbatch` sees it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from vitpipe.infra.errors import UsageError

OURS = {
    "array", "cpus-per-task", "error", "gpus-per-node", "job-name", "nodes", "no-requeue", "ntasks", "ntasks-per-node",
    "open-mode", "output", "requeue", "signal", "time", "account", "partition", "qos", "wrap",
}  # fmt: skip
"""Options of sbatch that the script sets itself, or that it has a word of its own for."""
NOTICE_S = 300
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>[0-5]?\d))?(?::(?P<third>[0-5]?\d))?")
_WORD = re.compile(r"[A-Za-z0-9._:@%+=,/\[\]{}*&|()-]+")


@dataclass(frozen=True)
class Wishes:
    """The job's size, place and time; None for what the cluster, or the YAML, decides."""

    nodes: int | None = None
    gpus_per_node: str | None = None
    """A number, or as sbatch takes it with a kind: `a100:8`."""
    cpus_per_node: int | None = None
    time: str | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    more: Sequence[str] = ()
    """Options of sbatch as they are, without the two dashes: `constraint=ib`, `exclusive`."""
    notice_s: int = NOTICE_S
    """Seconds before the end of `time` at which the run commits and goes back into the queue."""
    logs: str = "vitpipe-logs"
    apptainer: str | None = None
    enroot: str | None = None
    mounts: Sequence[str] = ()
    at_once: int | None = None

    def __post_init__(self) -> None:
        for name in ("time", "account", "partition", "qos", "gpus_per_node"):
            if (value := getattr(self, name)) and not _WORD.fullmatch(value):
                raise _wrong(f"--{name.replace('_', '-')} {value!r}", "sbatch takes no blanks and quotes there", "")
        if self.time and (seconds := _seconds(self.time)) is not None and seconds <= self.notice_s:
            found = f"the notice comes {self.notice_s} s before the end, which is the whole of it"
            raise _wrong(f"--time {self.time}", found, "give more time, or a shorter --notice")
        if self.apptainer and self.enroot:
            raise _wrong("--apptainer and --enroot", "one image is enough", "give one of them")
        for one in self.more:
            self._check(one)
        if self.gpus_per_node and not re.fullmatch(r"(?:[\w.-]+:)?[1-9]\d*", self.gpus_per_node):
            raise _wrong(f"--gpus-per-node {self.gpus_per_node}", "it is no number", "write 8, or a100:8")

    @property
    def gpus(self) -> int:
        """GPUs of one node."""
        return int(self.gpus_per_node.rpartition(":")[2]) if self.gpus_per_node else 0

    @property
    def image(self) -> str | None:
        """The image that all runs in, if any."""
        return self.apptainer or self.enroot

    @property
    def runtime(self) -> str:
        """What starts the image."""
        return "apptainer" if self.apptainer else "enroot"

    def given(self) -> list[str]:
        """Name what was asked for, as it is typed."""
        names = {"more": "sbatch", "notice_s": "notice", "mounts": "mount"}
        changed = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        return [f"--{names.get(name, name).replace('_', '-')}" for name in changed]

    def _check(self, option: str) -> None:
        name = option.partition("=")[0]
        if option.startswith("-") or not _WORD.fullmatch(option):
            raise _wrong(
                f"--sbatch {option!r}", "it is no option of sbatch", "write NAME or NAME=VALUE, without dashes"
            )
        if name in OURS:
            own = name if name in ("nodes", "gpus-per-node", "time", "account", "partition", "qos") else ""
            do = f"use --{own}" if own else "leave it out"
            raise _wrong(f"--sbatch {option}", f"the script says --{name} itself", do)


def _seconds(time: str) -> int | None:
    """Read sbatch's way to write a time limit; None for one without an end. UsageError."""
    if time in ("UNLIMITED", "INFINITE"):
        return None
    match = _TIME.fullmatch(time)
    if match is None:
        raise _wrong(f"--time {time}", "sbatch does not read that", "write 24:00:00, 2-12:00:00, or minutes")
    days, *parts = (int(part) if part else 0 for part in match.groups())
    if match["days"] or match["third"]:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, parts[0], parts[1]
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _wrong(option: str, found: str, do: str) -> UsageError:
    return UsageError(f"submit to Slurm with {option}", found, do)
