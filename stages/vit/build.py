"""The model that a set of settings names. Knows no weights: `init.py` or a file fills them."""

from torch import nn

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.convolutions import BottleneckStage
from vitpipe.stages.vit.hybrid import Bottleneck
from vitpipe.stages.vit.model import Block, ViT
from vitpipe.stages.vit.resnet import BiTResNet, PreActBottleneck

Model = ViT | BiTResNet
"""Both have `settings`, `features(images)` and `head`, and give logits when called on images."""


def build_model(settings: ModelSettings) -> Model:
    """Make the model, its parameters not yet drawn. UsageError when `classes` is not set."""
    return BiTResNet(settings) if settings.resnet is not None else ViT(settings)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """List what a model repeats, in order: encoder blocks and bottleneck units, each fit to be compiled on its own."""
    return [module for module in model.modules() if isinstance(module, Block | Bottleneck | PreActBottleneck)]


def checkpoint_blocks(model: Model) -> None:
    """From now on keep only each block's input in training, and compute the rest again in the backward pass."""
    for module in model.modules():
        if isinstance(module, ViT | BottleneckStage):
            module.checkpoint_blocks = True
