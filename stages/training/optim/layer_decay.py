"""Layer-wise decay of the learning rate: which share of it each parameter has, by its native name. No torch.

As BEiT (`optim_factory.py`), and MAE after it (`util/lr_decay.py`): with L blocks, what comes before them has
decay^(L+1), block i from 0 on decay^(L-i), and what comes after them the whole rate.
"""

import re
from collections.abc import Iterable

BEFORE = ("cls_token", "mask_token", "pos_embed", "patch_embed", "reg", "norm_pre", "stem.")
"""How names of parameters before the first block begin: tokens, positions, all of a hybrid's stem, a ResNet's root."""
_BLOCK = re.compile(r"(?:stages\.\d+\.)?blocks\.\d+\.")


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Give each parameter its share of the rate. `names` are all of a model's, in its order; 1 decays nothing."""
    listed = list(names)
    found = {name: _BLOCK.match(name) for name in listed}
    order = dict.fromkeys(block[0] for block in found.values() if block)
    depths = {block: place + 1 for place, block in enumerate(order)}
    last = len(depths) + 1

    def depth(name: str) -> int:
        if name.startswith(BEFORE):
            return 0
        block = found[name]
        return depths[block[0]] if block else last

    return {name: decay ** (last - depth(name)) for name in listed}
