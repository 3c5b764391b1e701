"""Top classes of images: read in threads, a batch at a time, in the order given. Knows no store."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.prefetch import in_order
from vitpipe.stages.predict.image_files import Prediction
from vitpipe.stages.predict.manner import AnyImage, Manner, name_of
from vitpipe.stages.vit.build import Model

BATCH_IMAGES = 32


def predict(
    model: Model, manner: Manner, images: Sequence[AnyImage], top: int, batch_images: int = BATCH_IMAGES
) -> Iterator[Prediction]:
    """One answer an image, in their order.

    Errors: UsageError for a model without a head; IntegrityError when the model's answer is no number.
    """
    if not model.settings.classes:
        found = "they have no head: they were pretrained without labels"
        raise UsageError(f"predict with {manner.where}", found, "fine-tune them first, and predict with the Score")
    threads = min(8, os.cpu_count() or 1)
    side = model.settings.image_px
    read = in_order(lambda place: _read(manner, images[place], side), range(len(images)), threads, ahead=batch_images)
    named = zip((name_of(image, place) for place, image in enumerate(images)), read, strict=True)
    while batch := list(islice(named, batch_images)):
        good = [pixels for _, pixels in batch if not isinstance(pixels, BadImage)]
        rows = iter(_top_classes(model, manner, np.stack(good), top) if good else ())
        for name, pixels in batch:
            bad = isinstance(pixels, BadImage)
            yield Prediction(name, reason=str(pixels)) if bad else Prediction(name, next(rows))


@torch.inference_mode()
def _top_classes(model: Model, manner: Manner, images_BHWC: Pixels, top: int) -> list[tuple[tuple[str, float], ...]]:
    device = next(model.parameters()).device
    images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).contiguous().to(device)
    logits_BK = model(images_BCHW).float()
    if not torch.isfinite(logits_BK).all():
        found, why = "the model's outputs are not finite numbers", "its weights are damaged or its training diverged"
        raise IntegrityError("predict", found, why)
    shares_BK = logits_BK.softmax(dim=1) if manner.head == "softmax" else logits_BK.sigmoid()
    values, places = shares_BK.cpu().topk(min(top, shares_BK.shape[1]), dim=1)
    rows = zip(values.tolist(), places.tolist(), strict=True)
    return [tuple((manner.names[place], value) for value, place in zip(*row, strict=True)) for row in rows]


def _read(manner: Manner, image: AnyImage, side: int) -> Pixels | BadImage:
    try:
        return manner.prepared(image, side)
    except BadImage as error:
        return error
