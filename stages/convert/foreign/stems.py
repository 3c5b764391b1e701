"""What the names of convolutions say: the units in each stage of a hybrid's stem, or a whole BiT ResNet. No torch."""

import re
from collections.abc import Iterable, Mapping

from vitpipe.stages.convert.config import ForeignFormat
from vitpipe.stages.convert.numbers import Shape
from vitpipe.stages.vit.variants import BASE_WIDTH, VARIANTS, ResNet, find_variant

TIMM_ROOT = "stem.conv.weight"
GOOGLE_ROOT = "resnet/root_block/standardized_conv2d/kernel"
HEADS = ("head.bias", "head.fc.bias", "resnet/head/conv2d/bias")
"""Of ResNets: ours, timm's, BiT's."""
_STEMS = ("patch_embed.backbone.stem.conv.weight", "patch_embed.backbone.conv.weight", "conv_root/kernel")
_UNIT = {
    True: re.compile(r"(?:params/|resnet/)?block(\d+)/unit(\d+)/"),  # Google counts from 1
    False: re.compile(r"(?:patch_embed\.backbone\.)?stages\.(\d+)\.blocks\.(\d+)\."),
}


def find_stem(format: ForeignFormat, names: Iterable[str]) -> tuple[int, ...] | None:
    """Units by stage, () for a root alone; None where there is no stem."""
    listed = set(names)
    if not any(root in listed or f"params/{root}" in listed for root in _STEMS):
        return None
    return _units(format, listed)


def find_resnet(format: ForeignFormat, shapes: Mapping[str, Shape]) -> ResNet | None:
    """A ResNet by its units and the channels of its root; None for an encoder."""
    if TIMM_ROOT in shapes:
        channels = shapes[TIMM_ROOT][0]
    elif GOOGLE_ROOT in shapes:
        channels = shapes[GOOGLE_ROOT][-1]
    else:
        return None
    return ResNet(_units(format, shapes), channels // BASE_WIDTH)


def name_of(resnet: ResNet) -> str | None:
    """The paper's name."""
    return next((name for name in VARIANTS if find_variant(name).resnet == resnet), None)


def _units(format: ForeignFormat, names: Iterable[str]) -> tuple[int, ...]:
    units: dict[int, set[int]] = {}
    for name in names:
        if match := _UNIT[format.startswith("google")].match(name):
            units.setdefault(int(match[1]), set()).add(int(match[2]))
    return tuple(len(units[stage]) for stage in sorted(units))
