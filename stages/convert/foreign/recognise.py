"""Which architecture a file holds, from its tensors' names and shapes, and from what stands beside it. No torch.

Nothing is guessed: what neither says has to be given in the config.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignFormat, ForeignSource
from vitpipe.stages.convert.foreign.later import hidden_size, later_fields, other_model
from vitpipe.stages.convert.formats.common import Named, readings
from vitpipe.stages.convert.formats.described import Described
from vitpipe.stages.convert.formats.landmarks import Landmarks
from vitpipe.stages.convert.links import PATCHES
from vitpipe.stages.convert.numbers import Shape
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import in_brief
from vitpipe.stages.variants import BASE_WIDTH, VARIANTS, ResNet, find_variant, reduced

Shapes = Mapping[str, Shape]
Units = tuple[int, ...]


def recognise(named: Named, described: Described, source: ForeignSource, asked: str) -> ModelSettings:
    """The settings of the model that the tensors are. UsageError saying what cannot be told, or cannot be had."""
    if source.format not in (None, named.format):
        found = f"its tensors are named as {named.format} names them"
        raise UsageError(f"{asked} as {source.format}", found, "leave config.source.format out, or name another file")
    try:
        fields = dict(described.model) if described.model else _fields(named, described, source, asked)
        given = source.model_dump(include={"gelu", "norm_eps"}, exclude_none=True)
        settings = ModelSettings.model_validate(fields | given)
    except (ValidationError, IndexError) as error:
        why = in_brief(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(asked, f"its sizes are not those of a model of ours: {why}", "name another file") from error
    if settings.representation != "none" and described.representation_act:
        found = f"its config says {described.representation_act}, behind that layer models here have tanh"
        raise UsageError(asked, found, "it would be another function: it cannot be converted")
    return settings


def channels_of(named: Named) -> int:
    """Channels of its images: the axis of the first kernel that is neither its width nor a side."""
    marks, shapes = named.reading.landmarks, named.arrays.shapes
    first = next((name for name in (*marks.stems, marks.resnet, marks.patch) if name in shapes), None)
    if first is None or len(shapes[first]) != 4:
        return 3
    return shapes[first][1 if marks.patch_axes[0] == 0 else 2]


def refuse_channels(named: Named, settings: ModelSettings, source: ForeignSource, asked: str) -> None:
    """UsageError for a model of other images than of three colours, unless grey ones are allowed."""
    channels = channels_of(named)
    if channels == 3 or (channels == 1 and source.in_chans_ok and settings.family == "vit"):
        return
    if channels == 1 and settings.family == "vit":
        do = "give config.source.in_chans_ok: true to have colours weighed as grey (0.299, 0.587, 0.114)"
        raise UsageError(asked, "its images have 1 channel, ours have three colours", do)
    raise UsageError(asked, f"its images have {channels} channels, ours have three colours", "name another file")


def _fields(named: Named, described: Described, source: ForeignSource, asked: str) -> dict[str, Any]:
    reading, shapes = named.reading, named.arrays.shapes
    marks, image_px = reading.landmarks, described.image_px or source.image_px
    if marks.resnet in shapes:
        return _resnet_fields(marks, shapes, image_px, asked)
    sizes = _sizes(marks, shapes, described.heads or source.heads, asked)
    head = {"classes": shapes[marks.head][0]} if marks.head in shapes else {}
    _refuse_other_sizes(described.sizes, sizes | head, asked)
    stem = None if shapes.keys().isdisjoint(marks.stems) else _units(marks, shapes)
    pool = "map" if marks.pool in shapes else "cls" if marks.token in shapes else "gap"
    later: dict[str, Any] = {}
    if marks.patch == PATCHES[0] and stem is None:
        later = later_fields(named, described, source, pool, asked)
        pool = later["pool"]
    _refuse_other_pool(described.pooled, pool, asked)
    rows = later.pop("rows_of_tokens", 1 if marks.token in shapes and marks.token_has_row else 0)
    return {
        "variant": _name_of(sizes, stem, asked),
        "image_px": _image_px(marks, shapes, sizes["patch_px"], rows, image_px, stem, asked),
        "classes": head.get("classes", 0),
        "representation": _representation(marks, shapes, sizes["width"]),
        "pool": pool,
        "position": _position(named.format, marks.positions in shapes, described, source, "rope" in later, asked),
        "gelu": described.gelu or reading.gelu,
        "norm_eps": reading.norm_eps if described.norm_eps is None else described.norm_eps,
        **later,
    }


def _sizes(marks: Landmarks, shapes: Shapes, heads: int | None, asked: str) -> dict[str, int]:
    width_axis, patch_axis = marks.patch_axes
    patch = shapes.get(marks.patch, ())
    if not patch:
        near = ", ".join(sorted(shapes)[:5])
        raise UsageError(asked, f"no {marks.patch} among its {len(shapes)} tensors ({near})", "name a plain ViT's file")
    if len(patch) != 4 or patch[2 if width_axis == 0 else 1] != patch[patch_axis]:
        raise UsageError(asked, f"{marks.patch} is {patch}, not the kernel of square patches", "name another file")
    pattern = re.compile(re.escape(marks.block).replace(r"\{\}", r"(\d+)"))
    layers = 1 + max((int(match[1]) for name in shapes if (match := pattern.match(name))), default=-1)
    first = marks.block.format(0)
    if first + marks.hidden not in shapes:
        found = f"no {first}{marks.hidden} among its {len(shapes)} tensors, {layers} blocks"
        raise UsageError(asked, found, "name the file, or the folder of all shards, of a plain Vision Transformer")
    mlp = hidden_size(shapes, first) if marks.patch == PATCHES[0] else shapes[first + marks.hidden][0]
    sizes = {"layers": layers, "width": patch[width_axis], "mlp": mlp}
    if first + marks.query in shapes:
        heads = shapes[first + marks.query][0]
    return {**sizes, "heads": heads or _known_heads(sizes, asked), "patch_px": patch[patch_axis]}


def _known_heads(sizes: Mapping[str, int], asked: str) -> int:
    """Heads are not in the shapes of most formats; variants with names tell theirs."""
    for name in VARIANTS:
        known = find_variant(name).sizes
        if known and all(getattr(known, field) == value for field, value in sizes.items()):
            return known.heads
    shown = ", ".join(f"{field} {value}" for field, value in sizes.items())
    raise UsageError(asked, f"nothing says its number of attention heads ({shown})", "give config.source.heads")


def _name_of(sizes: Mapping[str, int], stem: Units | None, asked: str) -> str | Mapping[str, int]:
    """The paper's name where there is one; hybrids have no other."""
    for name in VARIANTS:
        known = find_variant(name)
        if known.sizes and known.sizes.model_dump() == sizes and known.stem == stem:
            return name
    if stem is not None:
        raise UsageError(asked, f"a hybrid with units {stem} and {dict(sizes)} has no name here", "name another file")
    return sizes


def _image_px(
    marks: Landmarks, shapes: Shapes, patch_px: int, others: int, said: int | None, stem: Units | None, asked: str
) -> int:
    """From the rows of the position table; a config may say a size that is no multiple of the patch."""
    if marks.positions not in shapes:
        return _said(said, asked)
    rows = shapes[marks.positions][-2] - others
    grid = math.isqrt(max(rows, 0))
    if grid < 1 or grid * grid != rows:
        raise _not_square(shapes, rows, asked)
    if said is None:
        return grid * patch_px * (1 if stem is None else 2 ** (2 + max(0, len(stem) - 1)))
    if (own := (said if stem is None else reduced(said, stem)) // patch_px) != grid:
        found = f"images of {said} px are {own} x {own} patches, its position table is of {grid} x {grid}"
        raise UsageError(
            asked, found, "correct the size in the config beside it, or name the files that belong together"
        )
    return said


def _not_square(shapes: Shapes, rows: int, asked: str) -> UsageError:
    if others := other_model(f"+ {name}" for name in shapes):
        return UsageError(asked, f"it has {others}, models here have not", "name another model")
    if math.isqrt(rows + 1) ** 2 == rows + 1:
        found = f"its position table has {rows + 1} rows and so none for the class token, as models here have"
        return UsageError(asked, found, "name another model")
    found = f"its position table is of {rows} patches, not a square"
    return UsageError(asked, found, "name a model of square images")


def _position(
    format: ForeignFormat, has_table: bool, described: Described, source: ForeignSource, has_rope: bool, asked: str
) -> str:
    """A table that is there is learned; what is not there may be computed, which no tensor shows."""
    if has_table:
        if source.position not in (None, "learned1d") or described.position:
            found = f"it has a table of positions, and position {source.position or described.position} has none"
            raise UsageError(asked, found, "leave config.source.position out")
        return "learned1d"
    if has_rope and source.position in (None, "none"):
        return "none"
    can_be = readings()[format].untabled
    if not can_be:
        found = f"it has no table of positions, and every model of {format} has one"
        raise UsageError(asked, found, "name the file, or the folder of all shards, of a whole model")
    said = source.position or described.position
    if said is None:
        ways = {"sincos2d": "compute them from sines (big_vision)", "none": "have none"}
        found = f"it has no table of positions: its model may {' or '.join(ways[one] for one in can_be)}"
        do = f"say which: config.source.position: {', or '.join(can_be)}"
        raise UsageError(asked, found, do if len(can_be) > 1 else f"if so, give config.source.position: {can_be[0]}")
    if said not in can_be:
        needs = "learned1d needs one" if said == "learned1d" else f"{format} has no model of {said} positions"
        found = f"it has no table of positions, and {needs}: without a table they are {' or '.join(can_be)}"
        raise UsageError(asked, found, f"if it is one of these, give config.source.position: {can_be[0]}")
    return said


def _said(image_px: int | None, asked: str) -> int:
    if image_px is None:
        found = "neither its tensors nor a config say the size of its images"
        raise UsageError(asked, found, "give config.source.image_px")
    return image_px


def _resnet_fields(marks: Landmarks, shapes: Shapes, image_px: int | None, asked: str) -> dict[str, Any]:
    """By its units and the channels of its first kernel."""
    resnet = ResNet(_units(marks, shapes), shapes[marks.resnet][marks.resnet_axis] // BASE_WIDTH)
    name = next((name for name in VARIANTS if find_variant(name).resnet == resnet), None)
    if name is None:
        found = f"a ResNet with units {resnet.blocks} and width factor {resnet.width_factor} has no name here"
        raise UsageError(asked, found, "name another file")
    classes = next((shapes[head][0] for head in marks.resnet_heads if head in shapes), 0)
    return {"variant": name, "image_px": _said(image_px, asked), "classes": classes}


def _units(marks: Landmarks, names: Iterable[str]) -> Units:
    """Units of convolutions by stage; () for a root alone."""
    units: dict[int, set[int]] = {}
    for name in names:
        if match := re.match(marks.unit, name):
            units.setdefault(int(match[1]), set()).add(int(match[2]))
    return tuple(len(units[stage]) for stage in sorted(units))


def _representation(marks: Landmarks, shapes: Shapes, width: int) -> str | int:
    if marks.representation not in shapes:
        return "none"
    size = shapes[marks.representation][0]
    return "width" if size == width else size


def _refuse_other_sizes(said: Mapping[str, int], found: Mapping[str, int], asked: str) -> None:
    both = {name: size for name, size in said.items() if name in found}
    if wrong := [f"{name} {size}, its tensors {found[name]}" for name, size in both.items() if found[name] != size]:
        raise UsageError(asked, f"the config beside it says {'; '.join(wrong)}", "name the files that belong together")


def _refuse_other_pool(said: str | None, pool: str, asked: str) -> None:
    """timm may pool a model with a class token by something else; ours knows one way for each set of tensors."""
    if said is not None and {"token": "cls", "avg": "gap"}.get(said, said) != pool:
        found = f"it pools by {said!r}, its tensors are those of a model that pools by {pool}"
        raise UsageError(asked, found, "this combination cannot be converted")
