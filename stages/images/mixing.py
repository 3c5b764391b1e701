"""Mixup and CutMix: which images of the sequence are blended or pasted into each other, and by which share.

Every draw is keyed by the seed and by the pair, the image or the step, so an image is the same in whatever micro-batch
and on whatever rank it comes. Knows no files.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.extension import Bytes, loaded_extension
from vitpipe.stages.images.keys import Floats, Ints, uniforms

SoftLabels = npt.NDArray[np.float32]
"""(B, K): the share of each class in each image."""


def partners(positions_B: Ints, settings: AugmentSettings, batch_images: int) -> Ints:
    """Find the position of the image that each is mixed with.

    neighbours: 2k and 2k + 1 have each other. roll: the one before in its step, and the first has the last, as
    big_vision's utils.get_mixup on one device.
    """
    if settings.mixing.pairing == "neighbours":
        return positions_B ^ 1
    places_B = positions_B % batch_images
    return positions_B - places_B + (places_B - 1) % batch_images


def mix(
    cut_BCHW: Bytes,
    labels_BK: SoftLabels,
    others_BCHW: Bytes,
    others_BK: SoftLabels,
    positions_B: Ints,
    settings: AugmentSettings,
    seed: int,
    batch_images: int,
) -> None:
    """Blend each image with its partner, or paste a box of it, in place; labels follow.

    Each keeps a share of at least 1/2 of itself (AugReg takes the larger part as well), and is rounded to uint8 again,
    which the authors' floats are not.
    """
    draws_B4 = _draws(positions_B, settings, seed, batch_images)
    alpha = settings.mixing.alpha
    pastes_B = (draws_B4[:, 0] < 0.5) & (settings.cutmix > 0) if alpha else np.ones(len(positions_B), dtype=bool)
    of_B = np.where(pastes_B, settings.cutmix, alpha)
    share_B = betaincinv(of_B, of_B, draws_B4[:, 1])
    own_B = np.maximum(share_B, 1 - share_B)
    extension = loaded_extension()
    for b in range(len(positions_B)):
        own = float(own_B[b])
        if pastes_B[b]:
            own_B[b] = _paste(cut_BCHW[b], others_BCHW[b], own, *draws_B4[b, 2:].tolist())
        elif extension is None:
            cut_BCHW[b] = np.rint(own * cut_BCHW[b] + (1 - own) * others_BCHW[b])
        else:
            extension.mix(cut_BCHW[b], others_BCHW[b], own)
    own_B1, rest_B1 = own_B.astype(np.float32)[:, None], (1 - own_B).astype(np.float32)[:, None]
    labels_BK[...] = own_B1 * labels_BK + rest_B1 * others_BK


def _draws(positions_B: Ints, settings: AugmentSettings, seed: int, batch_images: int) -> Floats:
    """Four numbers (B, 4) for each image, the same for all that share them."""
    if settings.mixing.per == "batch":
        return uniforms(positions_B // batch_images, 4, "mix of a batch", seed)
    if settings.mixing.pairing == "neighbours":
        return uniforms(positions_B // 2, 4, "mix", seed)
    return uniforms(positions_B, 4, "mix of an image", seed)


def _paste(image_CHW: Bytes, other_CHW: Bytes, own: float, top: float, left: float) -> float:
    """Take a box of about 1 - own of the area from another image (CutMix, Yun et al. 2019). Returns the share kept."""
    side = image_CHW.shape[2]
    half = math.sqrt(1 - own) * side / 2
    y0, y1 = (round(min(max(top * side + edge, 0), side)) for edge in (-half, half))
    x0, x1 = (round(min(max(left * side + edge, 0), side)) for edge in (-half, half))
    extension = loaded_extension()
    if extension is None:
        image_CHW[:, y0:y1, x0:x1] = other_CHW[:, y0:y1, x0:x1]
    else:
        extension.paste(image_CHW, other_CHW, slice(y0, y1), slice(x0, x1))
    return float(1 - (y1 - y0) * (x1 - x0) / (side * side))
