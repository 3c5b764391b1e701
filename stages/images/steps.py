"""Steps of RandAugment on planes: what each does, by our extension or by numpy, to the bit. Knows no kind's ranges."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images import numpy_steps
from vitpipe.stages.images.extension import Bytes, address, loaded_extension
from vitpipe.stages.images.numpy_steps import EXACT_SUM, Program, What

STEP = np.dtype([("table", "u8"), ("numbers", "f8", 6), ("what", "i4"), ("program", "i4"), ("fill", "i4")], align=True)
"""`struct step` of native/steps.h."""
NO_NUMBERS = (0.0,) * 6


class Step(NamedTuple):
    """One operation with all that was drawn for it."""

    what: What
    program: Program = Program.BIG_VISION
    """Whose arithmetic it has, where programs differ."""
    numbers: tuple[float, ...] = ()
    """EVEN: grey and factor. COLOUR, CONTRAST, SHARPNESS: the factor, 1 for no change. BILINEAR, BICUBIC: six of a
    matrix. BOX: top, left, bottom and right."""
    table: npt.NDArray[Any] | None = None
    """TABLE: 256 levels. GATHER: int32 for each pixel of the result, one more than the place that it has its own from,
    or 0 for `fill`."""
    fill: int = 0


def take_steps(planes: Bytes, steps: Sequence[Step]) -> None:
    """Take steps on contiguous planes (3, H, W), in place."""
    extension = loaded_extension()
    if extension is not None and fits(steps, planes.shape[1] * planes.shape[2]):
        extension.steps(planes, np.array([packed(step) for step in steps], dtype=STEP))
        return
    for step in steps:
        numpy_steps.take(planes, step.what, step.program, step.numbers, step.table, step.fill)


def fits(steps: Sequence[Step], pixels: int) -> bool:
    """Whether the extension has the pixels of each step: of torchvision's contrast, up to some size."""
    return pixels <= EXACT_SUM or all((step.what, step.program) != _CONTRAST for step in steps)


def packed(step: Step) -> tuple[Any, ...]:
    """A row of `STEP`; the table has to be kept."""
    numbers = step.numbers + NO_NUMBERS[len(step.numbers) :]
    return (0 if step.table is None else address(step.table), numbers, step.what, step.program, step.fill)


@lru_cache(maxsize=64)
def nearest(height: int, width: int, matrix: tuple[float, ...], fill: int) -> Step:
    """Take each pixel from where a matrix of six numbers leads in single precision, to the nearest pixel."""
    return Step(What.GATHER, table=numpy_steps.places(height, width, np.array(matrix, dtype=np.float32)), fill=fill)


@lru_cache(maxsize=256)
def by_table(levels: bytes) -> Step:
    """Replace each level by another."""
    return Step(What.TABLE, table=np.frombuffer(levels, dtype=np.uint8))


_CONTRAST = (What.CONTRAST, Program.TORCHVISION)
