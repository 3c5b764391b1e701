"""How weights speak and how they want images: class names, kind of head, and the way of any image to the model's size.

An image is a file's path, its bytes, an image of Pillow's, or a uint8 array. No torch, no weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitpipe.stages.images.decode import DECODE_FAILURES, MAX_FILE_BYTES, Pixels, decode, upright
from vitpipe.stages.images.evaluate import fitted
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.preparation import EvalWay

Head = Literal["softmax", "sigmoid"]
AnyImage = Path | str | bytes | Image.Image | npt.NDArray[np.uint8]
"""What is one image; a folder's path stands for several."""
ONE = (Path, str, bytes, Image.Image, np.ndarray)
"""The classes of such."""


@dataclass(frozen=True)
class Manner:
    """What belongs to a model beside its numbers, when it is to answer questions about images."""

    where: str
    """Where its weights came from, for messages."""
    names: tuple[str, ...]
    """Of the classes, in the order of the head's rows; empty for weights without a head."""
    head: Head
    """softmax: one class an image; sigmoid: each class by itself."""
    way: EvalWay
    """How an image gets to the model's size."""

    def prepared(self, image: AnyImage, image_px: int) -> Pixels:
        """Bring an image to uint8 (image_px, image_px, 3) as for the test, or as the weights' makers do.

        BadImage for one not readable.
        """
        return fitted(_pixels(image), image_px, self.way)


def name_of(image: AnyImage, place: int) -> Path | str:
    """Name an image for its answer: its path, or its place among those that were given, from 0 on."""
    return Path(image) if isinstance(image, str | Path) else f"image {place}"


def _pixels(image: AnyImage) -> Pixels:
    if isinstance(image, str | Path):
        return decode(_bytes(Path(image)))
    if isinstance(image, bytes):
        return decode(image)
    if isinstance(image, Image.Image):
        try:
            return upright(image)
        except DECODE_FAILURES as error:
            raise BadImage(f"Pillow cannot read it: {error}") from error
    return _of_array(image)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadImage(f"a file of {size} bytes is over the cap of {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"it cannot be read: {error.strerror}") from error


def _of_array(image: object) -> Pixels:
    """Grey (H, W) or (H, W, 1), RGB (H, W, 3), or RGBA whose alpha is dropped."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
        raise BadImage(f"{found} is no path, bytes, image of Pillow's or uint8 array")
    grey = image[:, :, None] if image.ndim == 2 else image
    if grey.ndim != 3 or grey.shape[2] not in (1, 3, 4) or not grey.size:
        raise BadImage(f"an array of shape {image.shape} is none of (H, W), (H, W, 1), (H, W, 3) and (H, W, 4)")
    return np.array(np.broadcast_to(grey[:, :, :3], (*grey.shape[:2], 3)))  # a copy: the caller's may be read-only
