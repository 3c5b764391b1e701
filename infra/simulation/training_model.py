"""What a simulated training takes, and how its node is set. Plain data."""

from collections.abc import Callable
from dataclasses import dataclass

from vitpipe.infra.ray.gang_size import Size


@dataclass(frozen=True)
class TrainingModel:
    """What a training takes, measured or estimated, and how its node is set."""

    total_steps: int
    step_seconds: Callable[[int], float]
    """By the number of ranks."""
    next_save: Callable[[int], int]
    """The first step after one that is saved: `ResolvedRecipe.next_save`."""
    size: Size
    stall_s: float = 0.0
    """For which a save holds the ranks up."""
    commit_s: float = 0.0
    """From there until it is committed, while training goes on."""
    start_s: float = 60.0
    """From having machines to the first step: processes, meeting, restoring."""
    first_start_s: float | None = None
    """Of the first start, which restores nothing; by default as long as the others."""
    end_s: float = 1.5
    """For ending what is left of a failed start."""
    crash_seen_s: float = 1.5
    """Until a dead process is known of: half a question's interval, and what is heard after it."""
    loss_seen_s: float = 30.0
    """Until Ray gives up a machine that is silent."""
    hang_timeout_s: float = 600.0
    max_failures: int = 3
    wait_s: float = 300.0
    """For which too few machines are borne before the command ends."""
    person_s: float = 1800.0
    """Until somebody runs a command again that ended."""
    heeds_notices: bool = True
    """Whether ranks commit and start again when told to."""
    saves_aside: bool = True
    """Whether training goes on while a save is committed."""

    def starting_s(self, starts: int) -> float:
        """Seconds of the last of so many starts."""
        return self.start_s if starts > 1 or self.first_start_s is None else self.first_start_s
