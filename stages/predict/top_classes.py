"""Top classes of image files: decoded in threads, a batch at a time, in the order given. Knows no store."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.decode import MAX_FILE_BYTES, Pixels, decode
from vitpipe.stages.images.evaluate import fitted
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.prefetch import in_order
from vitpipe.stages.predict.image_files import Prediction
from vitpipe.stages.predict.opened_weights import OpenedWeights

BATCH_IMAGES = 32


def predict(
    weights: OpenedWeights, images: Sequence[Path], top: int, batch_images: int = BATCH_IMAGES
) -> Iterator[Prediction]:
    """One answer an image, in their order. IntegrityError when the model's answer is no number."""
    threads = min(8, os.cpu_count() or 1)
    read = in_order(lambda path: _read(weights, path), images, threads, ahead=batch_images)
    while batch := list(islice(read, batch_images)):
        good = [pixels for _, pixels in batch if not isinstance(pixels, BadImage)]
        rows = iter(_top_classes(weights, np.stack(good), top) if good else ())
        for path, pixels in batch:
            bad = isinstance(pixels, BadImage)
            yield Prediction(path, reason=str(pixels)) if bad else Prediction(path, next(rows))


@torch.inference_mode()
def _top_classes(weights: OpenedWeights, images_BHWC: Pixels, top: int) -> list[tuple[tuple[str, float], ...]]:
    images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).contiguous().to(weights.device)
    logits_BK = weights.model(images_BCHW).float()
    if not torch.isfinite(logits_BK).all():
        found, why = "the model's outputs are not finite numbers", "its weights are damaged or its training diverged"
        raise IntegrityError("predict", found, why)
    shares_BK = logits_BK.softmax(dim=1) if weights.head == "softmax" else logits_BK.sigmoid()
    values, places = shares_BK.cpu().topk(min(top, shares_BK.shape[1]), dim=1)
    rows = zip(values.tolist(), places.tolist(), strict=True)
    return [tuple((weights.names[place], value) for value, place in zip(*row, strict=True)) for row in rows]


def _read(weights: OpenedWeights, path: Path) -> tuple[Path, Pixels | BadImage]:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadImage(f"a file of {size} bytes is over the cap of {MAX_FILE_BYTES}")
        image = decode(path.read_bytes())
        side = weights.model.settings.image_px
        return path, fitted(image, side, weights.fit, weights.resize_px, weights.antialias)
    except BadImage as error:
        return path, error
    except OSError as error:
        return path, BadImage(f"it cannot be read: {error.strerror}")
