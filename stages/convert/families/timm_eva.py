"""timm's Eva models, EVA-02 and its DINOv3: how their files are told from VisionTransformer's and taken."""

import re
from collections.abc import Collection
from dataclasses import replace

from vitpipe.stages.convert.families.renamed import as_they_are, by_our_names, without
from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.timm import READING
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.vit.settings_file import SETTINGS

_SIGNS = re.compile(r"^blocks\.0\.(attn\.q_bias|attn\.q_proj\.weight|gamma_1|mlp\.fc1_g\.weight)$|^rope\.")
_COMPUTED = r"(^|\.)rope\.(freqs_(cos|sin)|periods|bands|pos_embed)|^mask_token$|attn\.k_bias$"


def claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    """The tensors by our names, where they are of these models."""
    if SETTINGS in beside or not any(_SIGNS.search(name) for name in arrays.shapes):
        return None
    kept, dropped = without(arrays, _COMPUTED)
    notes = (f"left out, computed or of pretraining: {len(dropped)} of its tensors",) if dropped else ()
    return common.Named("timm", by_our_names(kept), notes, dialect=EVA, theirs=arrays)


EVA = common.Dialect(
    replace(READING, claim=claim, links=as_they_are),
    "vitpipe.stages.convert.families.consumers:timm_eva",
)
