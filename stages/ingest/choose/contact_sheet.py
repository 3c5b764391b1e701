"""A picture of the near-duplicates found, the most doubtful first, for a person to judge the threshold by. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image as Picture
from PIL import ImageDraw

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.images.decode import decode, encoded
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.manifest import load_index, load_manifest
from vitpipe.stages.ingest.listing import ImageReader, Item
from vitpipe.stages.tasks import gather

PAIRS = 24
PER_ROW = 4
TILE_PX = 96
GAP_PX = 4
TEXT_PX = 14


@dataclass(frozen=True)
class Pair:
    """An image that was left out, and what it is like: of this source, or `URI#key` of an excluded set."""

    left: Item
    like: Item | str
    text: str


_Shown = tuple[Item, Item | tuple[ShardSet, str], str]


def near_sheet(pairs: Sequence[Pair], source: ImageReader, inputs: Inputs, ctx: StageContext) -> bytes:
    """PNG of pairs, left out and kept side by side, with the bits of both looks below."""
    shown = tuple((pair.left, _found(pair.like, inputs), pair.text) for pair in pairs)
    draw, needs = partial(draw_sheet, source), ctx.resources
    ((_, sheet),) = gather(ctx.cluster.fan(draw, [shown], resources=needs, label=lambda _: "pairs"))
    return sheet


def _found(like: Item | str, inputs: Inputs) -> Item | tuple[ShardSet, str]:
    if isinstance(like, Item):
        return like
    uri, _, key = like.rpartition("#")
    return next(shards for shards in inputs.many("exclude", ShardSet) if shards.uri == uri), key


def draw_sheet(source: ImageReader, pairs: Sequence[_Shown]) -> bytes:
    """Read and draw."""
    wide, high = 2 * TILE_PX + 3 * GAP_PX, TILE_PX + GAP_PX + TEXT_PX
    rows = -(-len(pairs) // PER_ROW)
    sheet = Picture.new("RGB", (PER_ROW * wide, rows * high + GAP_PX), "white")
    write = ImageDraw.Draw(sheet)
    own = _own_tiles(source, pairs)
    for place, pair in enumerate(pairs):
        x, y = place % PER_ROW * wide + GAP_PX, place // PER_ROW * high + GAP_PX
        for column, image in enumerate(pair[:2]):
            tile = own[image.name] if isinstance(image, Item) else _tile(_excluded(*image))
            sheet.paste(tile, (x + column * (TILE_PX + GAP_PX), y))
        write.text((x, y + TILE_PX), pair[2], fill="black")
    return encoded(sheet, "PNG")


def _own_tiles(source: ImageReader, pairs: Sequence[_Shown]) -> dict[str, Picture.Image]:
    """By name; read at once and in the order of the listing, for several may stand in one piece of a file."""
    own = {image.name: image for pair in pairs for image in pair[:2] if isinstance(image, Item)}
    names = sorted(own)
    found = source.reads([own[name] for name in names])
    return {name: _tile(b"" if isinstance(data, BadImage) else data) for name, data in zip(names, found, strict=True)}


def _excluded(shards: ShardSet, key: str) -> bytes:
    for entry in load_manifest(shards).of("test"):
        index = load_index(shards, entry)
        if key in index.key:
            row = list(index.key).index(key)
            return shards.store().read(shards.file(entry.path).at, index.offset[row], index.size[row])
    return b""


def _tile(data: bytes) -> Picture.Image:
    """Fitted into a square; a grey one for what is no longer there."""
    tile = Picture.new("RGB", (TILE_PX, TILE_PX), "lightgrey")
    try:
        image = Picture.fromarray(decode(data))
    except BadImage:
        return tile
    image.thumbnail((TILE_PX, TILE_PX), Picture.Resampling.BILINEAR)
    tile.paste(image, ((TILE_PX - image.width) // 2, (TILE_PX - image.height) // 2))
    return tile
