"""Characters drawn with random style: as greys with noise, or as the bitmaps that scanned digits are. No torch.

An image is a pure function of (seed, class, number): grey PNG bytes that any task on any machine draws alike with the
same Pillow. `glyph_classes.py` says which characters are classes, `glyph_drawing.py` and
`glyph_bitmaps.py` draw one.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vitpipe.stages.bounds import AnySeed, Few
from vitpipe.stages.ingest.sources.packaged import PackagedImages, PackagedSource
from vitpipe.stages.ingest.sources.source_settings import SourceCount, Splits

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.listing import Item, Listing
    from vitpipe.stages.ingest.sources.glyph_classes import Glyph

GLYPH_SECONDS = 0.001
"""One core's time to draw and write one."""
GLYPH_BYTES_PER_PIXEL = 1.0
SURE_CLASSES = 1000
"""Glyphs that the fonts have, whatever their version."""


class GlyphsSource(PackagedSource):
    """Characters of many scripts rendered from fonts bundled with installed packages (DejaVu, STIX); no digits."""

    kind: Literal["glyphs"]
    classes: int = Field(ge=2, le=100_000)
    """Number of classes; a class is an outline, characters drawn alike are one."""
    images_per_class: Few
    """Images drawn per class."""
    image_px: int = Field(ge=8, le=1024)
    """Side of an image, pixels."""
    style: Literal["grey", "bitmap"] = "grey"
    """grey: size, place, rotation, shear, contrast, blur and noise are random. bitmap: as UCI's digits were made,
    a black and white bitmap that fills its frame, warped, its strokes widened, summed in blocks of 4 x 4."""
    seed: AnySeed = 0
    """Which classes are taken, and every draw of style, place and noise."""

    def open(self, splits: Splits) -> "Glyphs":
        """The source with its classes drawn, so that tasks need not read all fonts again."""
        from vitpipe.stages.ingest.sources.glyph_classes import choose_glyphs

        return Glyphs(self, choose_glyphs(self.classes, self.seed))

    def count(self, splits: Splits) -> SourceCount:
        """What the settings say. UsageError where the fonts have fewer classes."""
        if self.classes > SURE_CLASSES:
            self.open(splits)  # reads all fonts, in a second or two
        each_bytes = self.image_px**2 * GLYPH_BYTES_PER_PIXEL
        return SourceCount(
            self.classes * self.images_per_class, each_bytes, GLYPH_SECONDS, self.classes, formats={"png": 1.0}
        )

    def text_digests(self) -> dict[str, str]:
        """The fonts."""
        from vitpipe.stages.ingest.sources.glyph_classes import FONTS, font_path

        return {f"{font}.ttf": sha256(font_path(font).read_bytes()).hexdigest() for font in FONTS}


@dataclass(frozen=True)
class Glyphs(PackagedImages):
    """Satisfies `opened.Source`."""

    settings: GlyphsSource
    glyphs: "tuple[Glyph, ...]"

    costly: ClassVar[bool] = True
    """Drawing one takes longer than reading it from a disk."""

    def listing(self) -> "Listing":
        """`images_per_class` images of each glyph, named by codepoint and number."""
        from vitpipe.stages.ingest.listing import Item, Items, Listing

        items = Items(
            Item(f"u{glyph.codepoint:05x}-{number:06d}", (label,))
            for label, glyph in enumerate(self.glyphs)
            for number in range(self.settings.images_per_class)
        )
        return Listing(items, tuple(glyph.name for glyph in self.glyphs))

    def read(self, item: "Item") -> bytes:
        """One image, drawn anew."""
        from vitpipe.stages.ingest.sources.glyph_bitmaps import draw_bitmap
        from vitpipe.stages.ingest.sources.glyph_drawing import draw, grey_png

        number = int(item.name.partition("-")[2])
        drawn = draw_bitmap if self.settings.style == "bitmap" else draw
        return grey_png(drawn(self.glyphs[item.labels[0]], self.settings.image_px, self.settings.seed, number))
