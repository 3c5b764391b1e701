"""Which micro-batches of a step a rank computes. Pure arithmetic: no torch, no data.

A step's batch is cut into micro-batches 0..n-1, dealt in turn to the ranks. When n does not divide by the
ranks, the last round is filled up with padding, so that all ranks make the same number of passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload


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

    def ranges(self, first_step: int, total_steps: int) -> "Ranges":
        """(start, count) of this rank's real micro-batches, in the order it needs them."""
        return Ranges(self, first_step, total_steps)


@dataclass(frozen=True)
class Ranges(Sequence[tuple[int, int]]):
    """The micro-batches of a rank from one step to another, none of them made before it is asked for."""

    sampler: DataParallelSampler
    first_step: int
    total_steps: int

    @cached_property
    def _real(self) -> list[int]:
        return [number for number in self.sampler.numbers() if not self.sampler.is_padding(number)]

    def __len__(self) -> int:
        return max(0, self.total_steps - self.first_step) * len(self._real)

    @overload
    def __getitem__(self, place: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, place: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        step, turn = divmod(place, len(self._real))
        return self.sampler.start(self.first_step + step, self._real[turn]), self.sampler.micro_batch
