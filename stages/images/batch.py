"""A batch on its way from readers to models. B images, K classes."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images as the decoder gave them: the model normalises them itself."""

    images_BCHW: Tensor
    """uint8, RGB."""
    labels: Tensor
    """int64 (B,) classes, or float32 (B, K) shares of each class when images are mixed or have several."""
    weights_B: Tensor
    """float32; 0 masks an image that is padding."""
    positions_B: Tensor
    """int64: positions in the endless sequence when training, numbers in the split when evaluating."""
    hints: tuple[Tensor, ...] = ()
    """Further inputs of the model, one row an image; objective and model agree on what they mean."""
