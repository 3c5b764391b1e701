"""Steps of RandAugment by numpy: what native/steps.c does, where that is not built. Several times slower."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.extension import Bytes

Floats = npt.NDArray[np.float32]
LEVELS = np.arange(256)
EXACT_SUM = 2**24 // 255
"""Pixels whose greys are added up without rounding in single precision, in whatever order."""
_ONCE, _FIVE = np.float32(1) / np.float32(13), np.float32(5) / np.float32(13)
_TENSORFLOWS_GREY = np.array([0.2989, 0.587, 0.114], dtype=np.float32)


class Program(IntEnum):
    """Whose arithmetic a step has."""

    BIG_VISION = 0
    PILLOW = 1
    TORCHVISION = 2


class What(IntEnum):
    """The operations that steps have."""

    TABLE = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2
    EVEN = 3
    COLOUR = 4
    CONTRAST = 5
    SHARPNESS = 6
    GATHER = 7
    BILINEAR = 8
    BICUBIC = 9
    BOX = 10


def take(
    planes: Bytes,
    what: What,
    program: Program,
    numbers: Sequence[float],
    table: npt.NDArray[Any] | None,
    fill: int,
) -> None:
    """Take one step on planes (3, H, W), in place."""
    if what == What.TABLE and table is not None:
        planes[...] = table[planes]
    elif what == What.AUTOCONTRAST:
        _by_planes(planes, [_stretched(int(plane.min()), int(plane.max()), program) for plane in planes])
    elif what == What.EQUALIZE:
        _by_planes(planes, [_equalizing(np.bincount(plane.ravel(), minlength=256)) for plane in planes])
    elif what == What.EVEN:
        planes[...] = _blended(np.float32(numbers[0]), LEVELS, numbers[1])[planes]
    elif what == What.COLOUR:
        grey = _grey(planes, program)
        planes[...] = (
            _mixed(planes, grey, numbers[0]) if program == Program.TORCHVISION else _blended(grey, planes, numbers[0])
        )
    elif what == What.CONTRAST:
        planes[...] = _contrasted(planes, program, numbers[0])[planes]
    elif what == What.SHARPNESS:
        planes[...] = _sharpened(planes, program, numbers[0])
    elif what == What.GATHER and table is not None:
        at = table.reshape(planes.shape[1:])
        planes[...] = np.where(at > 0, planes.reshape(3, -1)[:, np.maximum(at - 1, 0)], np.uint8(fill))
    elif what in (What.BILINEAR, What.BICUBIC):
        planes[...] = _moved(planes, numbers, what == What.BICUBIC, fill)
    elif what == What.BOX:
        top, left, bottom, right = (int(edge) for edge in numbers)
        planes[:, top:bottom, left:right] = fill


def places(height: int, width: int, matrix: Floats) -> npt.NDArray[np.int32]:
    """Find where (m0 x + m1 y + m2, m3 x + m4 y + m5) leads from each (x, y), to the nearest pixel: one more than its
    place, or 0 outside. In single precision, halves away from zero."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    from_x, from_y = (np.float64(m[0] * x + m[1] * y + m[2]) for m in (matrix[:3], matrix[3:]))
    inside = (from_x > -0.5) & (from_x < width - 0.5) & (from_y > -0.5) & (from_y < height - 0.5)
    rows, columns = (np.where(inside, place + 0.5, 0).astype(np.int32) for place in (from_y, from_x))
    return np.where(inside, rows * width + columns + 1, 0).astype(np.int32)


def _by_planes(planes: Bytes, tables: Sequence[npt.NDArray[Any]]) -> None:
    for plane, table in zip(planes, tables, strict=True):
        plane[...] = table[plane]


def _as_levels(values: npt.NDArray[Any]) -> Bytes:
    levels: Bytes = np.clip(values, 0, 255).astype(np.uint8)
    return levels


def _fused(one: Any, other: Any, added: Any) -> Floats:
    """one x other + added, rounded once."""
    fused: Floats = np.asarray(np.float64(one) * np.float64(other) + np.float64(added), dtype=np.float32)
    return fused


def _blended(one: Any, other: npt.NDArray[Any], factor: float) -> Bytes:
    """Go from one image by `factor` towards the other, or past it; cut off to a level."""
    return _as_levels(one + np.float32(factor) * (other.astype(np.float32) - one))


def _mixed(levels: npt.NDArray[Any], grey: Any, factor: float) -> Bytes:
    """The same as torchvision has it, in two products of which the second is fused with the addition."""
    return _as_levels(_fused(grey, np.float32(1.0 - factor), levels.astype(np.float32) * np.float32(factor)))


def _grey(planes: Bytes, program: Program) -> Any:
    if program == Program.BIG_VISION:
        red, green, blue = planes * np.float32(1 / 255) * _TENSORFLOWS_GREY[:, None, None]
        return ((red + green + blue) * np.float32(255.5)).astype(np.uint8).astype(np.float32)
    if program == Program.PILLOW:
        red, green, blue = planes.astype(np.int32)
        return (red * 19595 + green * 38470 + blue * 7471 + 0x8000 >> 16).astype(np.float32)
    red, green, blue = planes.astype(np.float32)
    grey = _fused(green, np.float32(0.587), red * np.float32(0.2989))
    return np.floor(_fused(blue, np.float32(0.114), grey))


def _contrasted(planes: Bytes, program: Program, factor: float) -> Bytes:
    """The table of a contrast."""
    grey = _grey(planes, program)
    if program == Program.PILLOW:
        return _blended(np.float32(int(grey.mean(dtype=np.float64) + 0.5)), LEVELS, factor)
    return _mixed(LEVELS, _mean(grey), factor)


def _mean(grey: Any) -> np.float32:
    """The mean as torch has it, whose order of addition shows where the sum has more bits than a float."""
    if grey.size <= EXACT_SUM:
        return np.float32(grey.sum(dtype=np.float64)) / np.float32(grey.size)
    import torch  # here, for everything else does without

    return np.float32(torch.from_numpy(grey).mean().item())


def _sharpened(planes: Bytes, program: Program, factor: float) -> Bytes:
    """Go from the mean of a pixel, counted five times, and its neighbours to itself, or past it; the border stays."""
    _, height, width = planes.shape
    to = planes.copy()
    if min(height, width) < 3:
        return to
    mean_CHW: Any = np.float32(0)
    for tap in range(9):
        top, left = divmod(tap, 3)
        part = planes[:, top : top + height - 2, left : left + width - 2]
        mean_CHW = _fused(part, _FIVE if tap == 4 else _ONCE, mean_CHW)
    smooth: Any = np.minimum(mean_CHW, 255).astype(np.uint8).astype(np.float32)
    sharp = planes[:, 1:-1, 1:-1].astype(np.float32)
    if program != Program.BIG_VISION:
        smooth = np.rint(mean_CHW)
    if program == Program.TORCHVISION:
        to[:, 1:-1, 1:-1] = _as_levels(_fused(smooth - sharp, np.float32(1.0 - factor), sharp))
    else:
        to[:, 1:-1, 1:-1] = _blended(smooth, sharp, factor)
    return to


def _equalizing(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """As Pillow does; few pixels, or one level, stay."""
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if not step:
        return LEVELS
    equal: npt.NDArray[np.int64] = np.minimum((np.cumsum(counts) - counts + step // 2) // step, 255)
    return equal


def _stretched(lowest: int, highest: int, program: Program) -> npt.NDArray[Any]:
    if lowest >= highest:
        return LEVELS
    if program == Program.PILLOW:
        factor = 255.0 / (highest - lowest)
        return _as_levels(LEVELS * factor + -lowest * factor)
    if program == Program.TORCHVISION:
        part = np.float32(highest - lowest) * np.float32(1 / 255)
        return _as_levels((LEVELS - lowest).astype(np.float32) / part)
    scale = np.float32(255) / np.float32(highest - lowest)
    return _as_levels(LEVELS.astype(np.float32) * scale + -np.float32(lowest) * scale)


def _moved(planes: Bytes, matrix: Sequence[float], bicubic: bool, fill: int) -> Bytes:
    """Pillow's filters (libImaging/Geometry.c), in double precision; neighbours beyond the border are the border."""
    _, height, width = planes.shape
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    at_x, at_y = (m[0] * x + m[1] * y + m[2] for m in (matrix[:3], matrix[3:]))
    outside = (at_x < 0) | (at_x >= width) | (at_y < 0) | (at_y >= height)
    left, top = (np.floor(place - 0.5) for place in (at_x, at_y))
    across, down = at_x - 0.5 - left, at_y - 0.5 - top
    near = range(-1, 3) if bicubic else range(2)
    columns = [np.clip(left + step, 0, width - 1).astype(np.int64) for step in near]
    rows = [np.clip(top + step, 0, height - 1).astype(np.int64) for step in near]
    along = _cubic if bicubic else _linear
    lines = [along([planes[:, row, column].astype(np.float64) for column in columns], across) for row in rows]
    return np.where(outside, np.uint8(fill), _cut_off(along(lines, down)))


def _cut_off(values: npt.NDArray[np.float64]) -> Bytes:
    return np.clip(values, 0, 255).astype(np.uint8)


def _linear(values: Sequence[Any], part: npt.NDArray[np.float64]) -> Any:
    one, other = values
    return one + (other - one) * part


def _cubic(values: Sequence[Any], part: npt.NDArray[np.float64]) -> Any:
    v1, v2, v3, v4 = values
    p2, p3, p4 = -v1 + v3, 2 * (v1 - v2) + v3 - v4, -v1 + v2 - v3 + v4
    return v2 + part * (p2 + part * (p3 + part * p4))
