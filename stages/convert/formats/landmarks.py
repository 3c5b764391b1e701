"""Names of the tensors that show which model a file of a format holds. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Landmarks:
    """Names of tensors from which a model's sizes are read; `{}` is the number of a block, "?" a name that none has."""

    patch: str
    patch_axes: tuple[int, int]
    """Axes of the patch kernel: its width, and a patch's side."""
    token: str
    positions: str
    block: str
    hidden: str
    """Bias of a block's first dense layer, behind the block's name."""
    head: str
    representation: str
    pool: str = "?"
    query: str = "?"
    """Bias of a block's queries (H, E), where the format shows heads."""
    token_has_row: bool = True
    """Whether a class token has a row of its own in the position table."""
    stems: tuple[str, ...] = ()
    """First kernels of hybrids, with and without stages behind it."""
    unit: str = "$^"
    """Regular expression of what stands before a convolution's name: its stage and its unit."""
    resnet: str = "?"
    """First kernel of a ResNet."""
    resnet_axis: int = 0
    """Its axis of channels."""
    resnet_heads: tuple[str, ...] = ()
    """Biases of a ResNet's head, any of which may be there."""
