"""From files to the pixels of a batch: of each image a part, resized, and of that a square, mirrored or not.

Our extension does all of it for many images in one call, without Python's lock; torch and numpy, where it is not built,
do the same image by image, to the bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.area import resize_area
from vitpipe.stages.images.crops import Box, square
from vitpipe.stages.images.extension import Bytes, Extension, address, loaded_extension
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.pixel_source import PixelSource
from vitpipe.stages.images.resize import resize
from vitpipe.stages.images.steps import STEP, Step, fits, packed, take_steps

IMAGE = np.dtype(
    [
        ("data", "u8"),
        ("size", "u8"),
        ("stride", "u8"),
        ("shape", "i4", 2),
        ("upright", "i4"),
        ("box", "i4", 4),
        ("resized", "i4", 2),
        ("corner", "i4", 2),
        ("side", "i4"),
        ("antialias", "i4"),
        ("flip", "i4"),
        ("out", "u8"),
        ("steps", "u8"),
        ("num_steps", "u8"),
    ],
    align=True,
)
"""`struct image` of native/image.c."""


@dataclass(frozen=True)
class Cuts:
    """How images become squares: of each a box, resized, and of that what a square at a corner has; black beyond."""

    shape_B2: Ints
    """Height and width of each image."""
    box_B4: Ints
    """Top, left, height and width."""
    resized_B2: Ints
    """Height and width to which the box is brought."""
    corner_B2: Ints
    """Top and left of the square, which may be negative."""
    flip_B: npt.NDArray[np.bool_]
    antialias: bool = True
    by_area: bool = False
    """Resized by area, not bilinearly."""


def begin(
    source: PixelSource, numbers_B: Ints, cuts: Cuts, cut_BCHW: Bytes, steps: Sequence[Sequence[Step]] = ()
) -> Callable[[slice], None]:
    """Prepare to make squares in a contiguous (B, 3, side, side), and to take the steps of each, if there are any.

    What is returned makes some of them; any threads may make any of them at a time.
    """
    extension = loaded_extension()
    if extension is not None and not cuts.by_area:
        return _ByExtension(extension, source, numbers_B, cuts, cut_BCHW, steps).make

    def make(rows: slice) -> None:
        for b in range(len(numbers_B))[rows]:
            pixels = source.part(int(numbers_B[b]), Box(*cuts.box_B4[b].tolist()))
            (height, width), (top, left) = cuts.resized_B2[b].tolist(), cuts.corner_B2[b].tolist()
            resized = (
                resize_area(pixels, height, width) if cuts.by_area else resize(pixels, height, width, cuts.antialias)
            )
            planes = square(resized, top, left, cut_BCHW.shape[-1]).transpose(2, 0, 1)
            cut_BCHW[b] = planes[:, :, ::-1] if cuts.flip_B[b] else planes
            if steps:
                take_steps(cut_BCHW[b], steps[b])

    return make


class _ByExtension:
    """Squares of a batch, by our extension."""

    def __init__(
        self,
        extension: Extension,
        source: PixelSource,
        numbers_B: Ints,
        cuts: Cuts,
        cut_BCHW: Bytes,
        steps: Sequence[Sequence[Step]],
    ) -> None:
        self._extension, self._source, self._numbers_B = extension, source, numbers_B
        files = source.files(numbers_B)
        self._kept: list[npt.NDArray[Any]] = [*files.kept]
        self._cut_BCHW = cut_BCHW
        self._images = images = np.zeros(len(numbers_B), dtype=IMAGE)
        images["data"], images["size"] = files.data_B, files.size_B
        images["shape"], images["box"], images["resized"] = cuts.shape_B2, cuts.box_B4, cuts.resized_B2
        images["corner"], images["flip"], images["antialias"] = cuts.corner_B2, cuts.flip_B, cuts.antialias
        images["side"] = cut_BCHW.shape[-1]
        images["out"] = address(cut_BCHW) + np.arange(len(numbers_B)) * cut_BCHW.strides[0]
        self._after: Sequence[Sequence[Step]] = ()
        if not all(fits(some, cut_BCHW.shape[2] * cut_BCHW.shape[3]) for some in steps):
            self._after = steps
        elif steps:
            rows = np.array([packed(step) for some in steps for step in some], dtype=STEP)
            images["num_steps"] = nums = [len(some) for some in steps]
            images["steps"] = address(rows) + (np.cumsum(nums) - nums) * STEP.itemsize
            self._kept += [rows, *(step.table for some in steps for step in some if step.table is not None)]

    def make(self, rows: slice) -> None:
        """What the extension can decode first; then, from their pixels, those that others had to."""
        images = self._images[rows]
        refused = self._extension.images(images)
        if any(refused):
            self._make_from_pixels(images, self._numbers_B[rows], refused)
        for planes, steps in zip(self._cut_BCHW[rows], self._after[rows], strict=False):
            take_steps(planes, steps)

    def _make_from_pixels(self, images: npt.NDArray[np.void], numbers_B: Ints, refused: Sequence[int]) -> None:
        rest = np.flatnonzero(refused)
        others, kept = images[rest], []
        for image, number in zip(others, numbers_B[rest].tolist(), strict=True):
            box = Box(*image["box"].tolist())
            pixels = self._source.part(number, box)
            if pixels.strides[1:] != (3, 1):
                pixels = np.ascontiguousarray(pixels)
            kept.append(pixels)
            image["data"], image["size"], image["stride"] = address(pixels), 0, pixels.strides[0]
            image["box"] = (0, 0, box.height, box.width)
        if any(self._extension.images(others)):
            raise MemoryError("no memory to resize an image")
