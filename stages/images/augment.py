"""From decoded images to the pixels of a batch: crop, flip and RandAugment.

Every draw is keyed by (seed, position in the endless sequence), so an image is the same in whatever batch and on
whatever rank it comes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from vitpipe.stages.images import crops, cuts
from vitpipe.stages.images.area import small_sides
from vitpipe.stages.images.config import AugmentSettings, before_crop_px
from vitpipe.stages.images.cuts import Cuts
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.keys import Ints, uniforms
from vitpipe.stages.images.pixel_source import PixelSource
from vitpipe.stages.images.randaugment.kinds import draws_for, steps_for
from vitpipe.stages.images.resize import no_strips, sides_of_small
from vitpipe.stages.images.steps import Step


def begin(
    source: PixelSource, numbers_B: Ints, positions_B: Ints, settings: AugmentSettings, seed: int, cut_BCHW: Pixels
) -> Callable[[slice], None]:
    """Draw all, so that images can be cropped, resized, flipped and varied into (B, 3, image_px, image_px).

    What is returned does so for some rows; any threads may do any of them at a time.
    """
    image_px = cut_BCHW.shape[2]
    drawn = draw(source.shapes(numbers_B), positions_B, settings, seed, image_px)
    steps: Sequence[Sequence[Step]] = ()
    varied = settings.randaugment
    if varied is not None:
        draws_BD = uniforms(positions_B, draws_for(varied), "randaugment", seed)
        steps = steps_for(varied, draws_BD, image_px, image_px)
    return cuts.begin(source, numbers_B, drawn, cut_BCHW, steps)


def draw(shape_B2: Ints, positions_B: Ints, settings: AugmentSettings, seed: int, image_px: int) -> Cuts:
    """Choose what is cut of images of these heights and widths, and which are mirrored."""
    count = len(positions_B)
    flip_B = uniforms(positions_B, 1, "flip", seed)[:, 0] < 0.5 if settings.flip else np.zeros(count, dtype=bool)
    box_B4, corner_B2 = np.concatenate((np.zeros_like(shape_B2), shape_B2), axis=1), np.zeros_like(shape_B2)
    resized_B2 = np.full_like(shape_B2, image_px)
    if settings.crop in ("random_resized", "inception"):
        box_B4 = boxes(shape_B2, positions_B, seed, settings.crop == "inception", settings.min_area)
    elif settings.crop != "none":
        first = crops.draws_of(positions_B, seed)[:, 0, 2:]
        side = settings.resize_px or before_crop_px(image_px)
        if settings.crop == "resmall":
            box_B4 = no_strips(shape_B2)
            resized_B2 = sides_of_small(box_B4[:, 2:], side)
        elif settings.crop == "area_small":
            box_B4 = no_strips(shape_B2)
            resized_B2 = small_sides(box_B4[:, 2:], side)
        elif settings.crop == "resize":
            resized_B2 = np.full_like(shape_B2, side)
        pad = (settings.pad_px or crops.PAD_PX) if settings.crop == "pad" else 0
        corner_B2 = (first * (resized_B2 + 2 * pad - image_px + 1)).astype(np.int64) - pad
    by_area = settings.crop == "area_small"
    return Cuts(shape_B2, box_B4, resized_B2, corner_B2, flip_B, settings.antialias, by_area)


def boxes(shape_B2: Ints, positions_B: Ints, seed: int, by_inception: bool, min_area: float | None) -> Ints:
    """Choose a box (B, 4) of each image by `inception` or by `random_resized`."""
    least = min_area or (crops.INCEPTION_MIN_AREA if by_inception else crops.TORCHVISION_MIN_AREA)
    extension = loaded_extension()
    found_B4 = np.zeros((len(shape_B2), 4), dtype=np.int64)
    if extension is not None:
        found_B4 = extension.boxes(
            shape_B2, crops.draws_of(positions_B, seed), least, None if by_inception else crops.LOG_RATIOS
        )
    choose = crops.inception if by_inception else crops.random_resized
    for b in np.flatnonzero(found_B4[:, 2] == 0).tolist():
        height, width = shape_B2[b].tolist()
        found_B4[b] = choose(height, width, least, crops.crop_tries(positions_B[b : b + 1], seed)[0])
    return found_B4
