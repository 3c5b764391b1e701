"""How many units each stage of a hybrid's stem has, by the names of its tensors. No torch."""

import re
from collections.abc import Iterable

from stages.convert.config import ForeignFormat

_ROOTS = ("patch_embed.backbone.stem.conv.weight", "patch_embed.backbone.conv.weight", "conv_root/kernel")
_UNIT = {
    True: re.compile(r"(?:params/)?block(\d+)/unit(\d+)/"),  # Google counts from 1
    False: re.compile(r"patch_embed\.backbone\.stages\.(\d+)\.blocks\.(\d+)\."),
}


def find_stem(format: ForeignFormat, names: Iterable[str]) -> tuple[int, ...] | None:
    """Units by stage, () for a root alone; None where there is no stem."""
    listed = set(names)
    if not any(root in listed or f"params/{root}" in listed for root in _ROOTS):
        return None
    units: dict[int, set[int]] = {}
    for name in listed:
        if match := _UNIT[format.startswith("google")].match(name):
            units.setdefault(int(match[1]), set()).add(int(match[2]))
    return tuple(len(units[stage]) for stage in sorted(units))
