"""The model that a set of settings names. Knows no weights: `init.py` or a file fills them."""

from stages.vit.config import ModelSettings
from stages.vit.model import ViT

Model = ViT
"""What all of them have: `settings`, `features(images)`, `head` and `checkpoint_blocks`; called, they give logits."""


def build_model(settings: ModelSettings) -> Model:
    """Make the model, its parameters not yet drawn. UsageError when `classes` is not set."""
    return ViT(settings)
