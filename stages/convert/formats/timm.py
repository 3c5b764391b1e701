"""The tensors of timm's models beside ours, which have its names; only a ResNet's head and other positions differ."""

from vitpipe.stages.convert.links import Link, same
from vitpipe.stages.convert.positions_out import position_link
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.shapes import parameter_shapes

_POSITIONS = ("pos_embed_x", "pos_embed_y")


def timm_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT, a hybrid or a ResNet without a representation layer."""
    names = parameter_shapes(settings)
    if settings.family == "resnet":
        return [_head(name) if name.startswith("head.") else same(name, name) for name in names]
    links = [same(name, name) for name in names if name not in _POSITIONS]
    if settings.position in ("learned2d", "sincos2d"):
        return [position_link(settings, "pos_embed"), *links]
    return links


def _head(name: str) -> Link:
    """A linear head (K, R) as a 1x1 convolution (K, R, 1, 1) behind timm's pooling."""
    foreign = name.replace("head.", "head.fc.")
    if name == "head.bias":
        return same(name, foreign)
    return Link((name,), (foreign,), lambda w_KR: (w_KR[..., None, None],), lambda w_KR11: (w_KR11[..., 0, 0],))
