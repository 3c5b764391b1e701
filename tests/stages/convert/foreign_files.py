"""Foreign weights as others write them, made by hand or by their own libraries from the same random numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from vitpipe.stages.model_settings import ModelSettings

Arrays = dict[str, NDArray[Any]]


def google_arrays(settings: ModelSettings, state: Mapping[str, Tensor], *, big_vision: bool = False) -> Arrays:
    """The original layout (AugReg's too), or big_vision's: written out by hand, sharing nothing with the code."""
    attention, mlp, norm2 = (
        ("MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1")
        if big_vision
        else ("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2")
    )
    arrays: Arrays = {
        "embedding/kernel": np.einsum("oihw->hwio", state["patch_embed.proj.weight"].numpy()),
        "embedding/bias": state["patch_embed.proj.bias"].numpy(),
    }
    if settings.pool == "cls":
        arrays["cls"] = state["cls_token"].numpy()
    if big_vision:
        table = state["pos_embed"].numpy()
        arrays["pos_embedding"] = table[:, 1:] if settings.pool == "cls" else table
    else:
        arrays["Transformer/posembed_input/pos_embedding"] = state["pos_embed"].numpy()
    for layer in range(settings.sizes.layers):
        ours, theirs = f"blocks.{layer}.", f"Transformer/encoderblock_{layer}/"
        arrays |= _norm(state, f"{ours}norm1", f"{theirs}LayerNorm_0") | _norm(state, f"{ours}norm2", theirs + norm2)
        arrays |= _attention(state, f"{ours}attn", theirs + attention, settings.sizes.heads)
        arrays |= _mlp(state, f"{ours}mlp", theirs + mlp)
    arrays |= _norm(state, "norm", "Transformer/encoder_norm")
    if settings.representation != "none":
        arrays |= _dense(state, "pre_logits", "pre_logits")
    if settings.pool == "map":
        arrays["MAPHead_0/probe"] = state["attn_pool.latent"].numpy()
        arrays |= _attention(state, "attn_pool", "MAPHead_0/MultiHeadDotProductAttention_0", settings.sizes.heads)
        arrays |= _norm(state, "attn_pool.norm", "MAPHead_0/LayerNorm_0")
        arrays |= _mlp(state, "attn_pool.mlp", "MAPHead_0/MlpBlock_0")
    return arrays | (_dense(state, "head", "head") if settings.classes else {})


def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def scanned(arrays: Arrays) -> Arrays:
    """All layers in one array, as big_vision's scan leaves them."""
    stacked: dict[str, list[NDArray[Any]]] = {}
    for name, array in arrays.items():
        if name.startswith("Transformer/encoderblock_"):
            stacked.setdefault("Transformer/encoderblock/" + name.split("/", 2)[2], []).append(array)
    rest = {name: array for name, array in arrays.items() if "encoderblock_" not in name}
    return rest | {name: np.stack(parts) for name, parts in stacked.items()}


def as_bf16(arrays: Arrays, raw: str) -> Arrays:
    """The upper half of each number, as void (`|V2`) or as uint16. Exact for numbers that bf16 can hold."""
    return {
        name: (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16).view(raw)
        for name, array in arrays.items()
    }


def rounded_to_bf16(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.bfloat16().float() for name, tensor in state.items()}


def write_npz(path: Path, arrays: Arrays, *, compressed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def huggingface_folder(
    folder: Path, classes: int | None = 5, pooler: bool = False, spread: float = 0.05, **changes: Any
) -> Any:
    """A random ViT saved by transformers itself; the model. The wider the weights are spread, the further its GELUs are
    from linear."""
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8,
        **({"id2label": {number: f"class {number}" for number in range(classes)}} if classes else {}),
        **{key: value for key, value in changes.items() if key != "max_shard_size"},
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.ViTForImageClassification(config) if classes else transformers.ViTModel(config, pooler)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    model.save_pretrained(folder, **{key: changes[key] for key in ("max_shard_size",) if key in changes})
    return model.eval()


def _norm(state: Mapping[str, Tensor], ours: str, theirs: str) -> Arrays:
    return {f"{theirs}/scale": state[f"{ours}.weight"].numpy(), f"{theirs}/bias": state[f"{ours}.bias"].numpy()}


def _dense(state: Mapping[str, Tensor], ours: str, theirs: str) -> Arrays:
    return {f"{theirs}/kernel": state[f"{ours}.weight"].numpy().T, f"{theirs}/bias": state[f"{ours}.bias"].numpy()}


def _mlp(state: Mapping[str, Tensor], ours: str, theirs: str) -> Arrays:
    return _dense(state, f"{ours}.fc1", f"{theirs}/Dense_0") | _dense(state, f"{ours}.fc2", f"{theirs}/Dense_1")


def _attention(state: Mapping[str, Tensor], ours: str, theirs: str, heads: int) -> Arrays:
    """Kernels (D, heads, E) of queries, keys, values and the output's (heads, E, D), biases likewise."""
    if f"{ours}.qkv.weight" in state:
        weights, biases = state[f"{ours}.qkv.weight"].chunk(3), state[f"{ours}.qkv.bias"].chunk(3)
    else:
        weights = (state[f"{ours}.q.weight"], *state[f"{ours}.kv.weight"].chunk(2))
        biases = (state[f"{ours}.q.bias"], *state[f"{ours}.kv.bias"].chunk(2))
    arrays: Arrays = {}
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        width = weight.shape[1]
        arrays[f"{theirs}/{name}/kernel"] = weight.numpy().T.reshape(width, heads, width // heads)
        arrays[f"{theirs}/{name}/bias"] = bias.numpy().reshape(heads, width // heads)
    out = state[f"{ours}.proj.weight"].numpy()
    arrays[f"{theirs}/out/kernel"] = out.T.reshape(heads, out.shape[0] // heads, out.shape[0])
    arrays[f"{theirs}/out/bias"] = state[f"{ours}.proj.bias"].numpy()
    return arrays
