"""What an objective adds to its model's costs, or saves of them: operations, parameters, activations. No torch.

Masked patches add a predictor; a masked autoencoder runs the encoder on the visible patches alone, and a decoder on
all of them.
"""

import math

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.vit import flops
from vitpipe.stages.vit.shapes import parameter_shapes


def train_flops(objective: ObjectiveSettings, model: ModelSettings) -> int:
    """Count the FLOPs of one image's forward and backward pass; masked patches predict half of theirs."""
    if objective.kind == "mae":
        inner, patches, tokens = objective.decoder_model(model), model.grid**2, _visible_tokens(objective, model)
        macs = flops.forward_macs(model, tokens) + tokens * model.sizes.width * inner.sizes.width
        macs += inner.sizes.layers * flops.block_macs(inner, inner.tokens)
        hidden = patches - objective.visible(patches)
        return 6 * (macs + hidden * inner.sizes.width * objective.outputs_of_patch(model.sizes.patch_px))
    return flops.train_flops_per_image(model) + 3 * model.grid**2 * _predictor(objective, model)


def recomputed_flops(objective: ObjectiveSettings, model: ModelSettings, zero: int) -> int:
    """Count the FLOPs of one image's blocks that are computed again in the backward pass, where they are."""
    partitioned = zero == 3
    if objective.kind == "mae":
        seen = flops.recomputed_flops_per_image(model, _visible_tokens(objective, model), partitioned)
        return seen + flops.recomputed_flops_per_image(objective.decoder_model(model), None, partitioned)
    return flops.recomputed_flops_per_image(model, None, partitioned)


def num_blocks(objective: ObjectiveSettings, model: ModelSettings) -> int:
    """Count the blocks and units of convolutions that an image passes."""
    inner = objective.decoder_model(model).sizes.layers if objective.kind == "mae" else 0
    return inner + flops.num_blocks(model)


def num_trained(objective: ObjectiveSettings, model: ModelSettings) -> int:
    """Count all parameters that are trained, those that the objective alone needs among them."""
    own = flops.num_parameters(model)
    if objective.kind == "mae":
        inner = objective.decoder_model(model)
        width, shapes = inner.sizes.width, parameter_shapes(inner)
        blocks = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(("blocks.", "norm.")))
        outputs = objective.outputs_of_patch(model.sizes.patch_px)
        return own + blocks + (model.sizes.width + 2) * width + (width + 1) * outputs  # embedding, mask token, pixels
    return own + _predictor(objective, model)


def activation_bytes(objective: ObjectiveSettings, model: ModelSettings, recompute: bool) -> int:
    """Count bytes kept for one image's backward pass, in bf16."""
    if objective.kind == "mae":
        seen = flops.activation_bytes(model, recompute, _visible_tokens(objective, model))
        return seen + flops.activation_bytes(objective.decoder_model(model), recompute)
    return flops.activation_bytes(model, recompute)


def largest_parameter(objective: ObjectiveSettings, model: ModelSettings) -> int:
    """Count the numbers of a model's largest matrix, about."""
    widest = [model.sizes.width * model.sizes.mlp] if model.resnet is None else [0]
    if objective.kind == "mae":
        inner = objective.decoder_model(model).sizes
        widest.append(inner.width * inner.mlp)
    return max(*widest, model.feature_width * (model.classes or 0))


def _visible_tokens(objective: ObjectiveSettings, model: ModelSettings) -> int:
    patches = model.grid**2
    return model.tokens - patches + objective.visible(patches)


def _predictor(objective: ObjectiveSettings, model: ModelSettings) -> int:
    """Weights of what masked patches are predicted with; its biases and the mask token are not worth counting."""
    if objective.kind != "masked_patch":
        return 0
    return model.sizes.width * objective.outputs_of_patch(model.sizes.patch_px)
