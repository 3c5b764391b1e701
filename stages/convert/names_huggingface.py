"""The tensors of transformers' ViTForImageClassification beside ours, by the names of its files.

transformers 5 renames its modules (`vit.layers.0.attention.q_proj`) but reads and writes files by these names, as
every version before it.
"""

from vitpipe.stages.convert.links import Link, same, stacked, weight_and_bias
from vitpipe.stages.convert.positions_out import position_link
from vitpipe.stages.model_settings import ModelSettings

_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def huggingface_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT with a class token and no representation layer."""
    links = [
        same("cls_token", "vit.embeddings.cls_token"),
        position_link(settings, "vit.embeddings.position_embeddings"),
        *weight_and_bias("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
    ]
    for layer in range(settings.sizes.layers):
        ours, theirs = f"blocks.{layer}", f"vit.encoder.layer.{layer}"
        for part in ("weight", "bias"):
            qkv = [f"{theirs}.attention.attention.{name}.{part}" for name in ("query", "key", "value")]
            links.append(stacked(f"{ours}.attn.qkv.{part}", tuple(qkv)))
        for native, foreign in _BLOCK.items():
            links += weight_and_bias(f"{ours}.{native}", f"{theirs}.{foreign}")
    return [*links, *weight_and_bias("norm", "vit.layernorm"), *weight_and_bias("head", "classifier")]
