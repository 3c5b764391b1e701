"""The files of a step's `state/` folder: which numbers lie where, and how any range of them is read.

Each rank writes its share of the weights, of the moments and of the average in a safetensors file each, whose tensors
are flat runs `kind/parameter/start`; `layout.json` lists them all. So any world size and ZeRO stage reads what any
other wrote, and a conversion reads the weights alone. Files are mapped, not loaded. Knows no DeepSpeed.
"""

import json
import math
from collections.abc import Container, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from infra.errors import IntegrityError
from stages.artifacts import Frozen
from stages.training.holdings import WEIGHT, Part, Shapes

LAYOUT = "layout.json"
WEIGHTS, MOMENTS, AVERAGE = "weights", "moments", "average"
Run = tuple[str, int, int]
"""Parameter, first number, how many."""


class Layout(Frozen):
    """`layout.json`."""

    updates: int
    """What the optimiser's bias corrections count."""
    shapes: Shapes
    """Of all parameters, in the model's order."""
    moments: tuple[str, ...]
    """Kinds of numbers in the files `moments`."""
    average: bool
    """Whether there are files `average`."""
    runs: tuple[tuple[Run, ...], ...]
    """What each rank wrote, of every kind alike; a rank without any has no file."""

    def encoded(self) -> bytes:
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
        """Of each parameter, (start, count, rank) of its runs in order."""
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

    def needed(self, held: Iterable[Part], share: Iterable[Part], average: bool) -> list[str]:
        """Files that hold the weights and moments of some parts, and with `average` that of others."""
        mine = {rank for part in held for rank, *_ in self.overlaps(part.name, part.start, part.count)}
        names = {file_name(sort, rank) for rank in mine for sort in (WEIGHTS, *([MOMENTS] if self.moments else []))}
        if average:
            shared = {rank for part in share for rank, *_ in self.overlaps(part.name, part.start, part.count)}
            names |= {file_name(AVERAGE, rank) for rank in shared}
        return sorted(names)


def file_name(sort: str, rank: int) -> str:
    """Name of a rank's file, inside the state's folder."""
    return f"{sort}-{rank:05d}.safetensors"


def sort_of(kind: str) -> str:
    """In which files numbers of a kind lie."""
    return {WEIGHT: WEIGHTS, AVERAGE: AVERAGE}.get(kind, MOMENTS)


def key(kind: str, name: str, start: int) -> str:
    """Name of a run inside its file."""
    return f"{kind}/{name}/{start}"


class StateFiles:
    """The state in a local folder, all files verified. With `average`, `tensor` and iteration give the average.

    `shapes` is name -> shape in the model's order, those of `leave_out` left out.
    """

    def __init__(self, folder: Path, leave_out: Container[str] = (), average: bool = False) -> None:
        self.folder = folder
        self.layout = Layout.parse((folder / LAYOUT).read_bytes(), str(folder / LAYOUT))
        self._kind = AVERAGE if average else WEIGHT
        self._open: dict[str, Any] = {}
        self.shapes = {name: shape for name, shape in self.layout.shapes.items() if name not in leave_out}

    def copy(self, kind: str, name: str, start: int, target: Tensor) -> None:
        """Copy numbers of a parameter, from `start` on, into a flat tensor. IntegrityError when they are not there."""
        for rank, first, low, high in self.layout.overlaps(name, start, target.numel()):
            file = file_name(sort_of(kind), rank)
            try:
                if file not in self._open:
                    self._open[file] = safe_open(self.folder / file, "pt")
                numbers = self._open[file].get_slice(key(kind, name, first))[low - first : high - first]
            except (OSError, SafetensorError) as error:
                raise IntegrityError(f"read {kind} of {name} in {self.folder / file}", str(error), "") from error
            target[low - start : high - start].copy_(numbers)

    def tensor(self, name: str) -> Tensor:
        """One parameter, or its average, in fp32, in memory of its own."""
        whole = torch.empty(self.shapes[name], dtype=torch.float32)
        self.copy(self._kind, name, 0, whole.view(-1))
        return whole

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.shapes:
            yield name, self.tensor(name)


def header(runs: dict[str, Tensor]) -> bytes:
    """What a safetensors file begins with whose flat tensors follow each other in this order."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    entries: dict[str, object] = {}
    start = 0
    for name, tensor in runs.items():
        stop = start + tensor.nbytes
        entries[name] = {"dtype": names[tensor.dtype], "shape": [tensor.numel()], "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text
