"""Which micro-batches of a step a rank computes. Pure arithmetic: no torch, no data.

A step's batch is cut into micro-batches 0..n-1, dealt in turn to the ranks. When n does not divide by the
ranks, the last round is filled up with padding, so that all ranks make the same number of passes.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class DataParallelSampler:
    """One rank's share of every step."""

    batch_images: int
    micro_batch: int
    rank: int = 0
    world_size: int = 1

    @property
    def num_micro(self) -> int:
        """Real micro-batches of a step, over all ranks."""
        return self.batch_images // self.micro_batch

    @property
    def accumulation_steps(self) -> int:
        """Passes every rank makes in a step, padding included."""
        return -(-self.num_micro // self.world_size)

    def numbers(self) -> list[int]:
        """The numbers of this rank's micro-batches; those from `num_micro` on are padding."""
        return [turn * self.world_size + self.rank for turn in range(self.accumulation_steps)]

    def is_padding(self, number: int) -> bool:
        """Whether there is no such micro-batch in a step's batch."""
        return number >= self.num_micro

    def start(self, step: int, number: int) -> int:
        """Position of a micro-batch's first image in the endless sequence; `step` finished updates came before."""
        return step * self.batch_images + number * self.micro_batch

    def ranges(self, first_step: int, total_steps: int) -> Iterator[tuple[int, int]]:
        """(start, count) of this rank's real micro-batches, in the order it needs them."""
        real = [number for number in self.numbers() if not self.is_padding(number)]
        for step in range(first_step, total_steps):
            for number in real:
                yield self.start(step, number), self.micro_batch
