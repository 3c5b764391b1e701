"""Our own model with the tensors of a source, as they are or rounded as a written file holds them."""

from collections.abc import Mapping

import torch

from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.formats.common import LinksOf
from vitpipe.stages.convert.numbers import stored, widened
from vitpipe.stages.convert.tensors import Tensors
from vitpipe.stages.vit.build import Model, build_model

DTYPES: Mapping[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(source: Tensors, rounding: torch.dtype = torch.float32) -> Model:
    """Our model with the source's tensors, rounded to a type but held in fp32."""
    with torch.device("meta"):
        model = build_model(source.settings)
    state = {name: torch.from_numpy(source.read(name)).to(rounding).float() for name in source.shapes}
    model.load_state_dict(state, assign=True)
    return model.eval()


def load_rounded(links_of: LinksOf | None, source: Tensors, dtype: Dtype) -> Model:
    """Our model with its numbers rounded as a format's are: what it holds in another form is rounded in that form."""
    model = load_model(source, DTYPES[dtype])
    if links_of is None:
        return model
    for link in links_of(source.settings):
        if not link.exact and link.to_native is not None:
            foreign = link.to_foreign(*(source.read(each) for each in link.native))
            back = link.to_native(*(widened(stored(array, dtype)) for array in foreign))
            state = {each: torch.from_numpy(array) for each, array in zip(link.native, back, strict=True)}
            model.load_state_dict(state, strict=False, assign=True)
    has_table = any(not link.native for link in links_of(source.settings))
    if source.settings.position == "sincos2d" and has_table:  # computed here, a table of numbers there
        table = model.get_buffer("pos_table")
        table.copy_(table.to(DTYPES[dtype]).float())
    return model
