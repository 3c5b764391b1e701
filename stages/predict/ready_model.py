"""A model that is ready to be asked: our own module, which knows its class names and how it wants images.

It is a ViT (or a BiT ResNet) with the same parameters and names, so it trains, saves and converts as any other.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.predict.image_files import Prediction, Predictions, find_images
from vitpipe.stages.predict.manner import ONE, AnyImage, Manner, name_of
from vitpipe.stages.predict.top_classes import predict
from vitpipe.stages.vit.build import Model
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.resnet import BiTResNet


@contextmanager
def same_threads() -> Iterator[None]:
    """Leave torch's threads as they are found: a task sets them for its process, which here is a person's own."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Ready(nn.Module):
    """What a model gains once its weights are open. `settings` has its architecture and image size."""

    settings: ModelSettings
    manner: Manner

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty for a model without a head."""
        return self.manner.names

    def preprocess(self, image: AnyImage) -> Tensor:
        """Bring an image to uint8 (3, image_px, image_px) as it was prepared for the test; give the model a batch.

        A path, a file's bytes, an image of Pillow's, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). The model takes
        it as it is, and scales pixels to [-1, 1] by itself. UsageError for an image that cannot be read.
        """
        try:
            pixels_HWC = self.manner.prepared(image, self.settings.image_px)
        except BadImage as error:
            raise _unreadable([Prediction(name_of(image, 0), reason=str(error))]) from error
        return torch.from_numpy(np.array(pixels_HWC.transpose(2, 0, 1), order="C"))

    def predict(self, images: AnyImage | Iterable[AnyImage], top: int = 5) -> Prediction | Predictions:
        """Name the `top` classes of one image, or of several: a list, or a folder with all that lies below it.

        Of several, those that cannot be read have their `reason` in place of classes. Errors: UsageError for a single
        image that cannot be read, a missing path, or a model without a head; IntegrityError for outputs that are no
        numbers. The model answers in evaluation mode, whichever it is in.
        """
        single = isinstance(images, ONE) and not (isinstance(images, str | Path) and Path(images).is_dir())
        given = list(_found([images] if isinstance(images, ONE) else list(images)))
        if top < 1:
            raise UsageError(f"predict the top {top} classes", "that is none", "give 1 or more")
        was_training = self.training
        self.eval()
        try:
            answers = Predictions(predict(cast(Model, self), self.manner, given, top))
        finally:
            self.train(was_training)
        if not single:
            return answers
        if answers[0].reason is not None:
            raise _unreadable(answers)
        return answers[0]


class ReadyViT(ViT, Ready):
    """A ViT with its labels and preprocessing."""


class ReadyResNet(BiTResNet, Ready):
    """A BiT ResNet with its labels and preprocessing."""


def ready_model(settings: ModelSettings, manner: Manner) -> ReadyViT | ReadyResNet:
    """Make the model that the settings name, its parameters not yet filled."""
    model = ReadyViT(settings) if settings.resnet is None else ReadyResNet(settings)
    model.manner = manner
    return model


def _found(images: list[AnyImage]) -> Iterator[AnyImage]:
    """All images in their order, folders with what lies below them. UsageError naming every path that is missing."""
    paths = [Path(image) for image in images if isinstance(image, str | Path)]
    find_images(paths)
    for image in images:
        if isinstance(image, str | Path):
            yield from find_images([Path(image)])
        else:
            yield image


def _unreadable(answers: Iterable[Prediction]) -> UsageError:
    (only,) = answers
    kinds = ", ".join(("a path", "bytes", Image.__name__, "a uint8 array"))
    return UsageError(f"read {only.image}", str(only.reason), f"give a JPEG, PNG or WebP as {kinds}")
