"""The files of a step's `state/` folder: which numbers lie where, and how any range of them is read.

Each rank writes its share of the weights, of the moments and of the average in a safetensors file each, whose tensors
are flat runs `kind/parameter/start`; `layout.json` lists them all. So any world size and ZeRO stage reads what any
other wrote, and a conversion reads the weights alone. Files are mapped, not loaded. Knows no DeepSpeed and no torch.
"""

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Frozen
from vitpipe.stages.training.config import WEIGHT

LAYOUT = "layout.json"
WEIGHTS, MOMENTS, AVERAGE = "weights", "moments", "average"
Shapes = dict[str, tuple[int, ...]]
Run = tuple[str, int, int]
"""Parameter, first number, how many."""


class Layout(Frozen):
    """`layout.json`."""

    updates: int
    """What the optimiser's bias corrections count."""
    shapes: Shapes
    """Shape of every parameter, in the model's order."""
    moments: tuple[str, ...]
    """Kinds of numbers in the files `moments`."""
    average: bool
    """Whether there are files `average`."""
    runs: tuple[tuple[Run, ...], ...]
    """What each rank wrote, of every kind alike; a rank without any has no file."""

    def encoded(self) -> bytes:
        """The bytes of the file."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, data: bytes, name: str) -> "Layout":
        """IntegrityError when it is damaged, or some number is missing or there twice."""
        try:
            layout = cls.model_validate_json(data)
        except ValidationError as error:
            raise IntegrityError(f"read {name}", f"it is damaged: {error}", "use another step") from error
        for parameter, shape in layout.shapes.items():
            end = 0
            for start, count, _ in layout.placed.get(parameter, ()):
                end = start + count if start == end else -1
            if end != math.prod(shape):
                raise IntegrityError(f"read {name}", f"its runs of {parameter} do not make {shape}", "use another step")
        return layout

    @cached_property
    def placed(self) -> dict[str, list[tuple[int, int, int]]]:
        """(start, count, rank) of each parameter's runs in order, by its name."""
        found: dict[str, list[tuple[int, int, int]]] = {}
        for rank, runs in enumerate(self.runs):
            for name, start, count in runs:
                found.setdefault(name, []).append((start, count, rank))
        return {name: sorted(runs) for name, runs in found.items()}

    def overlaps(self, name: str, start: int, count: int) -> Iterator[tuple[int, int, int, int]]:
        """Where [start, start + count) of a parameter lies: (rank, run's start, from, to), in order."""
        for first, length, rank in self.placed[name]:
            low, high = max(start, first), min(start + count, first + length)
            if low < high:
                yield rank, first, low, high

    def needed(self, held: Iterable[Run], share: Iterable[Run], average: bool) -> list[str]:
        """Files that hold the weights and moments of some runs, and with `average` that of others."""
        mine = {rank for run in held for rank, *_ in self.overlaps(*run)}
        names = {file_name(sort, rank) for rank in mine for sort in (WEIGHTS, *([MOMENTS] if self.moments else []))}
        if average:
            shared = {rank for run in share for rank, *_ in self.overlaps(*run)}
            names |= {file_name(AVERAGE, rank) for rank in shared}
        return sorted(names)


def file_name(sort: str, rank: int) -> str:
    """Name of a rank's file, inside the state's folder."""
    return f"{sort}-{rank:05d}.safetensors"


def key(kind: str, name: str, start: int) -> str:
    """Name of a run inside its file."""
    return f"{kind}/{name}/{start}"


class StateFiles:
    """The state in a local folder, all files verified. With `average`, `array` and iteration give the average.

    `shapes` is name -> shape in the model's order, without those whose names begin with one of `leave_out`.
    """

    def __init__(self, folder: Path, leave_out: tuple[str, ...] = (), average: bool = False) -> None:
        self.folder = folder
        self.layout = Layout.parse((folder / LAYOUT).read_bytes(), str(folder / LAYOUT))
        self._kind = AVERAGE if average else WEIGHT
        self._open: dict[tuple[str, str], Any] = {}
        self.shapes = {name: shape for name, shape in self.layout.shapes.items() if not name.startswith(leave_out)}

    def copy(self, kind: str, name: str, start: int, target: Any) -> None:
        """Copy numbers of a parameter, from `start` on, into a flat array of NumPy's or tensor of torch's.

        bf16, in which some moments are kept, is for tensors alone. IntegrityError when the numbers are not there.
        """
        framework = "np" if isinstance(target, np.ndarray) else "pt"
        for rank, first, low, high in self.layout.overlaps(name, start, len(target)):
            file = file_name({WEIGHT: WEIGHTS, AVERAGE: AVERAGE}.get(kind, MOMENTS), rank)
            try:
                if (file, framework) not in self._open:
                    self._open[file, framework] = safe_open(self.folder / file, framework)
                numbers = self._open[file, framework].get_slice(key(kind, name, first))[low - first : high - first]
            except (OSError, SafetensorError) as error:
                raise IntegrityError(f"read {kind} of {name} in {self.folder / file}", str(error), "") from error
            target[low - start : high - start] = numbers

    def array(self, name: str) -> NDArray[np.float32]:
        """One parameter, or its average, in memory of its own."""
        whole = np.empty(self.shapes[name], np.float32)
        self.copy(self._kind, name, 0, whole.reshape(-1))
        return whole

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for name in self.shapes:
            yield name, self.array(name)
