"""What each format has no place for, in words, and what it cannot say of a model that it does hold. No torch."""

from collections.abc import Callable, Mapping

from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.timm_config import timm_problems
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.variants import Sizes, find_variant

_FLAX_EPS = 1e-6  # flax.linen.LayerNorm; neither vision_transformer nor big_vision sets another
_TORCHVISION_EPS = 1e-6
TORCHVISION: Mapping[Sizes | None, str] = {
    find_variant(name).sizes: function
    for name, function in (
        ("B/16", "vit_b_16"), ("B/32", "vit_b_32"), ("L/16", "vit_l_16"), ("L/32", "vit_l_32"), ("H/14", "vit_h_14"),
    )
}  # fmt: skip
"""torchvision's functions by the encoder they build."""


def problems(name: Format, settings: ModelSettings) -> list[str]:
    """What of the model the format cannot hold; empty where it holds all."""
    return _PROBLEMS[name](settings)


def unsaid(name: Format, settings: ModelSettings) -> str | None:
    """What a reader of the written file has to be told, because the format has no place to say it."""
    if not name.startswith("google") or settings.family == "resnet" or settings.gelu == "tanh":
        return None
    return "the file cannot say that its GELU is the exact one (erf): Google's own code would compute tanh"


def _none(settings: ModelSettings) -> list[str]:
    return []


def _headless(settings: ModelSettings) -> list[str]:
    return ["an encoder without a head (classes 0)"] if settings.classes == 0 else []


def _huggingface(settings: ModelSettings) -> list[str]:
    if settings.family != "vit":
        return [_only_plain(settings, "ViTForImageClassification")]
    found = [*_positions(settings), *_class_token(settings), *_headless(settings)]
    if settings.representation != "none":
        found.append(f"the representation layer of {settings.feature_width}: its classifier sees no pooler")
    return found


def _torchvision(settings: ModelSettings) -> list[str]:
    if settings.family != "vit":
        return [_only_plain(settings, "VisionTransformer")]
    found = [*_positions(settings), *_class_token(settings), *_headless(settings), *_eps(settings, _TORCHVISION_EPS)]
    if settings.sizes not in TORCHVISION:
        found.append(f"{_name(settings)}: its functions are {', '.join(TORCHVISION.values())}")
    if settings.gelu == "tanh":
        found.append("the tanh GELU: it computes the exact one")
    if settings.image_px % settings.sizes.patch_px:
        found.append(f"images of {settings.image_px} px, which patches of {settings.sizes.patch_px} px do not divide")
    return found


def _google(settings: ModelSettings) -> list[str]:
    if settings.family == "resnet":
        return []
    found = [*_positions(settings), *_eps(settings, _FLAX_EPS)]
    if settings.pool == "map":
        found.append("an attention-pooling (map) head: google_big_vision holds one")
    return found


def _google_big_vision(settings: ModelSettings) -> list[str]:
    if settings.family == "resnet":
        return ["a ResNet: take google, whose layout big_vision reads too"]
    return [*_positions(settings), *_eps(settings, _FLAX_EPS)]


def _positions(settings: ModelSettings) -> list[str]:
    return ["relative positions"] if settings.position == "relative" else []


def _class_token(settings: ModelSettings) -> list[str]:
    return [] if settings.pool == "cls" else [f"pooling by {settings.pool}: it classifies the class token"]


def _eps(settings: ModelSettings, own: float) -> list[str]:
    return [] if settings.norm_eps == own else [f"norm_eps {settings.norm_eps:g} (its own is {own:g})"]


def _only_plain(settings: ModelSettings, consumer: str) -> str:
    return f"the {settings.family} {_name(settings)}: {consumer} is a plain ViT"


def _name(settings: ModelSettings) -> str:
    return settings.variant if isinstance(settings.variant, str) else "an encoder of explicit sizes"


_PROBLEMS: Mapping[Format, Callable[[ModelSettings], list[str]]] = {
    "native": _none,
    "timm": timm_problems,
    "huggingface": _huggingface,
    "torchvision": _torchvision,
    "google": _google,
    "google_big_vision": _google_big_vision,
    "onnx": _headless,
}
