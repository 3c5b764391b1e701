"""Where the time of a training went, over all its attempts: what was productive, and what was lost to which cause.

One small JSON beside every step. Knows no clock: callers say how much. No torch.
"""

import json
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

Cause = Literal["productive", "queue", "startup", "data_wait", "checkpoint", "evaluation", "skipped", "restarts"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
"""productive: steps less what they waited for data; queue: from the driver's start until the machines were its own;
startup: from then, or the gang's restart, to the first step; checkpoint: training stood still for one; skipped: steps
without an update; restarts: from the newest checkpoint to the next start, rolled-back steps and time without
machines."""


@dataclass
class Account:
    """Seconds of one training until now by cause, all its attempts together."""

    began: float
    """Unix time of the first attempt's start."""
    seconds: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    stopped: float = 0.0
    """Seconds between an end that was asked for and the next start: nobody's loss."""
    before: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    """Of `seconds`, those that the step had which training went on from."""

    def spend(self, cause: Cause, seconds: float) -> None:
        """Add time to a cause."""
        self.seconds[cause] += seconds

    def begins(self, start: float, since: float, now: float) -> None:
        """Take in the time from a start until the first step, of which the machines were its own `since` then."""
        passed = max(0.0, now - start)
        queued = min(passed, max(0.0, since - start))
        self.spend("queue", queued)
        self.spend("startup", passed - queued)

    def step(self, seconds: float, data_wait_seconds: float, skipped: bool) -> None:
        """Take a finished step in."""
        waited = min(seconds, data_wait_seconds)
        self.spend("skipped" if skipped else "productive", seconds - waited)
        self.spend("data_wait", waited)

    def encoded(self, at: float, stopped: bool = False) -> bytes:
        """The bytes to commit with a step: the account as of `at`, and whether training was asked to end there."""
        fields = {"began": self.began, "at": at, "stops": stopped, "stopped": self.stopped, "seconds": self.seconds}
        return (json.dumps(fields, indent=1) + "\n").encode()

    @classmethod
    def resumed(cls, data: bytes, start: float) -> Self:
        """The account of a step that training goes on from at `start`."""
        fields = json.loads(data)
        seconds: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0) | fields["seconds"]
        found = cls(fields["began"], seconds, fields["stopped"], dict(seconds))
        away = max(0.0, start - fields["at"])
        if fields["stops"]:
            found.stopped += away
        else:
            found.spend("restarts", away)
        return found

    def totals(self, now: float) -> dict[str, float]:
        """`goodput`, the productive share of all time that was not asked to pass, and `seconds_{cause}` of each cause.

        What no cause explains is `seconds_other`: writing curves, asking the store.
        """
        known = sum(self.seconds.values())
        total = max(now - self.began - self.stopped, known, 1e-9)  # `began` may be by another machine's clock
        other = total - known
        named = {f"seconds_{cause}": round(seconds, 3) for cause, seconds in self.seconds.items()}
        return {"goodput": self.seconds["productive"] / total, **named, "seconds_other": round(other, 3)}
