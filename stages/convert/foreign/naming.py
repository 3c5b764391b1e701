"""One set of names per format, whatever dialect a file speaks: prefixes, older names, stacked layers. No torch.

Dialects differ by who wrote the file and when; nothing here changes a number.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.foreign.stems import GOOGLE_ROOT, TIMM_ROOT
from vitpipe.stages.convert.numbers import Array, Arrays, Shape

STACKED = "Transformer/encoderblock/"
_KERNEL = "embedding/kernel"

_ALIASES: dict[ForeignFormat, tuple[tuple[str, str], ...]] = {
    "native": (),
    "timm": ((r"^pre_logits\.fc\.", "pre_logits."),),  # timm before 0.9
    "huggingface": (
        (r"^(embeddings|encoder|layers|layernorm|pooler)\.", r"vit.\1."),  # a bare ViTModel
        (r"^vit\.layers\.", "vit.encoder.layer."),  # the names that transformers 5 has in memory
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    "torchvision": ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),  # before 0.13
    "google": (),
    "google_big_vision": (),
}


@dataclass(frozen=True)
class Named:
    """A file's tensors under the names that its format has for them today."""

    format: ForeignFormat
    arrays: Arrays
    notes: tuple[str, ...] = ()
    """What was left out, or taken in another form than it stands in the file."""


def named(arrays: Arrays, has_model_json: bool, asked: str) -> Named:
    """Tell the format by the names. UsageError with what was found when it is none that is known."""
    names = arrays.shapes.keys()
    if any(name.endswith(_KERNEL) for name in names):
        return _google(arrays, asked)
    if GOOGLE_ROOT in names:
        return Named("google", arrays)
    if "patch_embed.proj.weight" in names or TIMM_ROOT in names:
        return _renamed("native" if has_model_json else "timm", arrays)
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in names):
        return _without_unused_pooler(_renamed("huggingface", arrays))
    if "conv_proj.weight" in names:
        return _renamed("torchvision", arrays)
    shown = ", ".join(sorted(names)[:5]) or "none"
    found = f"no Vision Transformer's patch embedding among its {len(names)} tensors ({shown})"
    raise UsageError(asked, found, "name a file of native, timm, huggingface, torchvision or Google's format")


def _renamed(format: ForeignFormat, arrays: Arrays) -> Named:
    rules = [(re.compile(old), new) for old, new in _ALIASES[format]]

    def rename(name: str) -> str:
        for old, new in rules:
            name = old.sub(new, name)
        return name

    return Named(format, _view(arrays, {rename(name): name for name in arrays.shapes}))


def _without_unused_pooler(found: Named) -> Named:
    """transformers' classifier sees the class token itself: a pooler beside it is never computed."""
    pooler = [name for name in found.arrays.shapes if name.startswith("vit.pooler.")]
    if not pooler or "classifier.weight" not in found.arrays.shapes:
        return found
    kept = {name: name for name in found.arrays.shapes if name not in pooler}
    return Named(found.format, _view(found.arrays, kept), ("a pooler that its classifier does not use was left out",))


def _google(arrays: Arrays, asked: str) -> Named:
    """Strip what stands before the model's names, unstack layers, flatten old norms of hybrids."""
    prefixes = sorted({name.removesuffix(_KERNEL) for name in arrays.shapes if name.endswith(_KERNEL)}, key=len)
    mine = [prefix for prefix in prefixes if _is_model(arrays.shapes, prefix)]
    if len(mine) != 1:
        found = f"{len(mine)} image models in it, below {', '.join(map(repr, mine or prefixes)) or 'no prefix'}"
        raise UsageError(asked, found, "give a file of one Vision Transformer")
    prefix = mine[0]
    inside = {name.removeprefix(prefix): name for name in arrays.shapes if name.startswith(prefix)}
    left_out = len(arrays.shapes) - len(inside)
    notes: tuple[str, ...] = (f"{left_out} arrays outside {prefix} were left out",) if left_out else ()
    if any(name.startswith(STACKED) for name in inside):
        notes += ("layers were stacked along a leading axis",)
    plain = _unstacked(_view(arrays, inside))
    if any("MultiHeadDotProductAttention_1/" in name for name in inside):
        return Named("google", plain, notes)
    return Named("google_big_vision", _view(plain, {f"params/{name}": name for name in plain.shapes}), notes)


def _is_model(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(f"{prefix}Transformer/") for name in names)


def _view(arrays: Arrays, real: Mapping[str, str]) -> Arrays:
    """The same arrays by other names, sizes of one before the channels of a norm taken away (vision_transformer's
    old hybrids have them)."""
    old_norms = {name for name in real if re.search(r"(^|/)gn[^/]*/(scale|bias)$", name)}

    def read(name: str, layer: int | None = None) -> Array:
        array = arrays.read(real[name], layer)
        return array.reshape(-1) if name in old_norms else array

    shapes = {name: arrays.shapes[old] for name, old in real.items()}
    flat = {name: shape[-1:] if name in old_norms else shape for name, shape in shapes.items()}
    return Arrays(flat, read, arrays.all_bf16)


def _unstacked(arrays: Arrays) -> Arrays:
    """Each layer by its own name where all stand in one array (big_vision's scan)."""
    shapes: dict[str, Shape] = {}
    parts: dict[str, tuple[str, int]] = {}
    for name, shape in arrays.shapes.items():
        if not name.startswith(STACKED):
            shapes[name] = shape
            continue
        for layer in range(shape[0] if shape else 0):
            each = f"{STACKED[:-1]}_{layer}/{name.removeprefix(STACKED)}"
            shapes[each], parts[each] = shape[1:], (name, layer)

    def read(name: str, layer: int | None = None) -> Array:
        return arrays.read(*parts[name]) if name in parts else arrays.read(name, layer)

    return Arrays(shapes, read, arrays.all_bf16)
