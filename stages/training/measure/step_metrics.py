"""What is known of one finished training step: its loss, its gradient norm, and how long each rank took. No torch."""

from dataclasses import dataclass

from vitpipe.stages.training.skipping import Skipped


@dataclass(frozen=True)
class RankTimes:
    """Seconds that one rank spent in one step by itself, which no other rank can lengthen."""

    forward_seconds: float
    data_wait_seconds: float


@dataclass(frozen=True)
class StepMetrics:
    """One finished step, the same on every rank but for the times."""

    step: int
    """Updates finished, this one included."""
    samples_seen: int
    loss: float
    """Mean over the global batch, before the update."""
    lr: float
    grad_norm: float
    seconds: float
    rank_times: tuple[RankTimes, ...] = ()
    """In order of rank."""
    skipped: Skipped | None = None
    """Why nothing was updated, or None; `loss` and `grad_norm` may then not be finite."""
    settled: bool = False
    """Nothing was computed since: the weights are those after `step`."""
    stop: str | None = None
    """Why all ranks end here; only with a settled step."""

    @property
    def data_wait_seconds(self) -> float:
        """The longest wait of any rank: the others wait for it."""
        return max((one.data_wait_seconds for one in self.rank_times), default=0.0)
