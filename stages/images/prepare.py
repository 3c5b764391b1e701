"""One image brought to a model's size as its weights' makers do: their resizing, their filter, their middle."""

import numpy as np
from PIL import Image

from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.resize import LONGEST, centre, resize
from vitpipe.stages.preparation import Interpolation, Preparation


def prepare(image: Pixels, image_px: int, way: Preparation) -> Pixels:
    """Bring uint8 (H, W, 3) to (image_px, image_px, 3).

    An image longer than 8 : 1 is cut to its middle first where its aspect is kept, so that a strip stays small.
    """
    if way.fit == "squash":
        return _resized(image, image_px, image_px, way.interpolation)
    before = max(way.resize_px or image_px, image_px)
    if way.fit == "resize_crop":
        image = _resized(image, before, before, way.interpolation)
    else:
        short = min(image.shape[:2])
        image = centre(image, min(image.shape[0], LONGEST * short), min(image.shape[1], LONGEST * short))
        # the longer side is cut off, not rounded, by torchvision and transformers alike
        height, width = (before if side == short else int(before * side / short) for side in image.shape[:2])
        image = _resized(image, height, width, way.interpolation)
    top, left = (_middle(side - image_px, way) for side in image.shape[:2])
    return image[top : top + image_px, left : left + image_px]


def _middle(over: int, way: Preparation) -> int:
    return over // 2 if way.centre == "down" else round(over / 2)


def _resized(image: Pixels, height: int, width: int, interpolation: Interpolation) -> Pixels:
    if interpolation == "bilinear" or image.shape[:2] == (height, width):
        return resize(image, height, width, antialias=True)
    # Pillow's own filters: timm and transformers call them, or torch's that agree to a level
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[interpolation.upper()]))
