"""What a ViT costs, counted from its settings alone: multiply-adds, training FLOPs, parameters. No torch.

Times 303M images x epochs, `train_flops_per_image` reproduces the paper's exaFLOPs (Table 6) within 2.5 %.
"""

from stages.vit.config import ModelSettings


def forward_macs(settings: ModelSettings) -> int:
    """Multiply-adds of one image's forward pass: matrix products only, as the paper's Table 6 counts.

    T tokens, D width, F MLP size, L layers, P patch: L(4D^2 + 2DF)T + 2LT^2D + N 3P^2 D, and the head.
    """
    sizes, tokens = settings.sizes, settings.tokens
    width, mlp, layers = sizes.width, sizes.mlp, sizes.layers
    block = (4 * width**2 + 2 * width * mlp) * tokens + 2 * tokens**2 * width
    if settings.position == "relative":
        block += tokens * (2 * tokens - 1) * width
    patches = settings.grid**2 * 3 * sizes.patch_px**2 * width
    pool = 0
    if settings.pool == "map":
        pool = 2 * tokens * width**2 + 2 * width**2 + 2 * tokens * width + 2 * width * mlp
    return layers * block + patches + pool + _head_weights(settings)


def train_flops_per_image(settings: ModelSettings) -> int:
    """FLOPs of one image's forward and backward pass: 2 a multiply-add, and the backward twice the forward."""
    return 6 * forward_macs(settings)


def num_parameters(settings: ModelSettings) -> int:
    """Trained parameters of the whole model, head included where `classes` is set."""
    sizes, features = settings.sizes, settings.feature_width
    width, mlp, layers = sizes.width, sizes.mlp, sizes.layers
    norm = 2 * width
    mlp_block = 2 * width * mlp + mlp + width
    block = 4 * (width**2 + width) + mlp_block + 2 * norm
    if settings.position == "relative":
        block += (2 * settings.tokens - 1) * (width // sizes.heads)
    positions = {"learned1d": settings.tokens * width, "learned2d": settings.grid * width}.get(settings.position, 0)
    patches = 3 * sizes.patch_px**2 * width + width
    pool = {"cls": width, "gap": 0, "map": width + 4 * (width**2 + width) + norm + mlp_block}[settings.pool]
    biases = (settings.classes or 0) + (features if settings.representation != "none" else 0)
    return layers * block + norm + positions + patches + pool + _head_weights(settings) + biases


def _head_weights(settings: ModelSettings) -> int:
    hidden = settings.sizes.width * settings.feature_width if settings.representation != "none" else 0
    return hidden + settings.feature_width * (settings.classes or 0)
