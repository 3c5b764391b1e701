"""What readers hand to models. B images, K classes."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images as the decoder gave them: normalising is the model's first act."""

    images_BCHW: Tensor
    """uint8, RGB."""
    labels: Tensor
    """int64 (B,) classes, or float32 (B, K) shares of each class when images are mixed or have several."""
    weights_B: Tensor
    """float32; 0 masks an image that only fills a place."""
    positions_B: Tensor
    """int64: place in the endless sequence when training, number in the split when evaluating."""
    hints: tuple[Tensor, ...] = ()
    """What a model is told besides the images, a row each; what it means is between the objective and the model."""
