"""Which later parts a file of our names holds: registers, scales, norms, gated MLPs, rotary positions. No torch.

Tensors show all but rotary positions, how it is pooled, and what scales started at; a config that says otherwise than
its tensors is refused.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignSource
from vitpipe.stages.convert.formats.common import Named
from vitpipe.stages.convert.formats.described import Described
from vitpipe.stages.convert.numbers import Shape

_OTHERS = {
    r"^\+ .*dist(illation)?_token": "a distillation token",
    r"^\+ .*(\.ls[12]\.gamma|layer_scale|lambda_?[12]|\.gamma_[12])": "layer scale",
    r"^\+ .*([qk]_norm|query_norm|key_norm)\.": "norms of queries and keys",
    r"^\+ .*(norm_pre|pre_norm|pre_layrnorm)\.": "a norm before its blocks",
    r"^\+ .*fc_norm\.": "its norm behind the pooling (fc_norm)",
    r"^\+ .*relative_position": "relative positions of another kind",
    r"^\+ .*(w12|mlp\.gate|fc1_g|swiglu)": "gated MLPs",
    r"^- .*(query|key|value|q_proj|qkv)\.bias": "no biases of queries, keys and values",
}
"""What tensors of others show by their names, in words; + before an unknown one, - before one that is missing."""
_POOLS = {"token": "cls", "avg": "gap", "map": "map"}


def later_fields(named: Named, described: Described, source: ForeignSource, pool: str, asked: str) -> dict[str, Any]:
    """Fields of the settings, the pooling among them, without those that a plain model has; and `rows_of_tokens`, rows
    of a position table that are not of patches. UsageError where a config contradicts the tensors."""
    shapes = named.arrays.shapes
    token, registers = int("cls_token" in shapes), shapes.get("reg_token", (1, 0, 0))[-2]
    _refuse_other_registers(described, registers, asked)
    there = {"cls": bool(token), "map": "attn_pool.latent" in shapes, "gap": True}
    wanted = _POOLS.get(described.pooled or "", pool)
    pool = wanted if there[wanted] else pool
    rows = _rows_of_tokens(shapes, token, registers, asked)
    rope = _rope(named, described, source, asked)
    found: dict[str, Any] = {"pool": pool, "rows_of_tokens": rows}
    found |= {"class_token": bool(token)} if bool(token) != (pool == "cls") else {}
    found |= {"registers": registers} if registers else {}
    found |= {"no_embed_class": True} if token and "pos_embed" in shapes and not rows else {}
    found |= {"pre_norm": True} if "norm_pre.weight" in shapes else {}
    found |= {"qk_norm": True} if "blocks.0.attn.q_norm.weight" in shapes else {}
    found |= {"layer_scale": described.layer_scale or 1.0} if "blocks.0.ls1.gamma" in shapes else {}
    found |= {"mlp_kind": "swiglu"} if _is_gated(shapes, "blocks.0.") else {}
    found |= {"mlp_norm": True} if "blocks.0.mlp.norm.weight" in shapes else {}
    found |= {"pool_norm": True} if "fc_norm.weight" in shapes else {}
    return found | ({"rope": rope} if rope else {})


def _refuse_other_registers(described: Described, registers: int, asked: str) -> None:
    if described.registers not in (None, registers):
        found = f"the config beside it says {described.registers} register tokens, its tensors have {registers}"
        raise UsageError(asked, found, "name the files that belong together")


def hidden_size(shapes: Mapping[str, Shape], block: str) -> int:
    """Size of the hidden layer: of a gated one, of either half."""
    return shapes[f"{block}mlp.fc1.bias"][0] // (2 if _is_gated(shapes, block) else 1)


def _is_gated(shapes: Mapping[str, Shape], block: str) -> bool:
    first, second = shapes.get(f"{block}mlp.fc1.weight", ()), shapes.get(f"{block}mlp.fc2.weight", ())
    return len(first) == len(second) == 2 and first[0] == 2 * second[1]


def _rows_of_tokens(shapes: Mapping[str, Shape], token: int, registers: int, asked: str) -> int:
    """How many rows of the table are before those of patches: none, one of the class token, or of registers too."""
    rows = shapes["pos_embed"][-2] if "pos_embed" in shapes else 0
    if not rows or _is_square(rows - token):
        return token
    if token and _is_square(rows):
        return 0
    if registers and _is_square(rows - token - registers):
        found = f"its position table has rows for its {registers} register tokens, models here have none"
        raise UsageError(asked, found, "name another model")
    return token


def _is_square(rows: int) -> bool:
    return rows > 0 and math.isqrt(rows) ** 2 == rows


def _rope(named: Named, described: Described, source: ForeignSource, asked: str) -> dict[str, Any] | None:
    """The recipe's, or the config's. UsageError where they are not one, or neither says what no tensor shows."""
    said, wanted = described.rope, source.rope
    if said and wanted and said != wanted:
        found = f"the config beside it says rope {said}, config.source.rope is {wanted}"
        raise UsageError(asked, found, "leave config.source.rope out, or correct it")
    if wanted and described.says_rope and not said:
        found = f"the config beside it says that it has no rotary positions, config.source.rope is {wanted}"
        raise UsageError(asked, found, "leave config.source.rope out")
    if named.dialect and named.format == "timm" and not (said or wanted or described.says_rope):
        found = "its names are those of timm's Eva models, whose rotary positions no tensor shows, and no config says"
        raise UsageError(asked, found, "give config.source.rope, such as {kind: eva02, grid: 16} or {kind: dinov3}")
    rope = said or wanted
    return rope.model_dump() if rope else None


def other_model(lines: Iterable[str]) -> str | None:
    """What makes it another model than ours, in words; from lines of tensors: + unknown ones, - missing ones."""
    lines = list(lines)
    return next((words for sign, words in _OTHERS.items() if any(re.search(sign, line) for line in lines)), None)
