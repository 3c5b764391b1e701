"""From decoded images to the pixels of a batch: crop, flip and RandAugment.

Every draw is keyed by (seed, position in the endless sequence), so an image is the same in whatever batch and on
whatever rank it comes.
"""

from collections.abc import Callable

import numpy as np

from vitpipe.stages.images import crops, cuts
from vitpipe.stages.images.area import small_sides
from vitpipe.stages.images.boxes import boxes
from vitpipe.stages.images.config import AugmentSettings, RandAugmentSettings, before_crop_px
from vitpipe.stages.images.cuts import Cuts, PixelSource
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.keys import Ints, uniforms
from vitpipe.stages.images.randaugment.kinds import draws_for, rand_augment
from vitpipe.stages.images.resize import no_strips, sides_of_small


def begin(
    source: PixelSource, numbers_B: Ints, positions_B: Ints, settings: AugmentSettings, seed: int, cut_BCHW: Pixels
) -> Callable[[slice], None]:
    """Draw all, so that images can be cropped, resized, flipped and varied into (B, 3, image_px, image_px).

    What is returned does so for some rows; any threads may do any of them at a time.
    """
    drawn = draw(source.shapes(numbers_B), positions_B, settings, seed, cut_BCHW.shape[2])
    make = cuts.begin(source, numbers_B, drawn, cut_BCHW)
    varied = settings.randaugment
    if varied is None:
        return make

    def made_and_varied(rows: slice) -> None:
        make(rows)
        _vary(cut_BCHW[rows], positions_B[rows], varied, seed)

    return made_and_varied


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


def _vary(cut_BCHW: Pixels, positions_B: Ints, settings: RandAugmentSettings, seed: int) -> None:
    draws_BD = uniforms(positions_B, draws_for(settings), "randaugment", seed)
    for row_CHW, draws in zip(cut_BCHW, draws_BD, strict=True):
        row_CHW[...] = rand_augment(row_CHW, settings, draws)
