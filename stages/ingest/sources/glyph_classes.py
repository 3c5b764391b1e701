"""Which characters are classes: outlines that differ, from the fonts that matplotlib brings. No torch.

A class is an outline: characters drawn alike in some font (Latin A, Greek Alpha, Cyrillic A) are one. Left out are
digits and numbers of any script, what compatibility-decomposes to or is drawn like one, combining and modifying marks,
blanks, and placeholders. Fonts are DejaVu and STIX; last-resort fonts and sizes of mathematical parts are not used.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from fontTools.ttLib import TTFont
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.draw import unit_hash

FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
LETTERS = ("Lu", "Ll", "Lt", "Lo")
"""Unicode categories of the characters taken."""
_STEPS = 200
"""Outlines are compared on a grid of so many steps over their larger side, whatever their place and size."""


@dataclass(frozen=True)
class Glyph:
    """One class: a character and the fonts that draw it."""

    codepoint: int
    fonts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The class name: codepoint and Unicode's name."""
        return f"U+{self.codepoint:04X} {unicodedata.name(chr(self.codepoint), 'unnamed')}"


def font_path(name: str) -> Path:
    """A bundled font's file. UsageError when matplotlib is not installed."""
    spec = find_spec("matplotlib")  # found, not imported: only its files are needed
    if spec is None or spec.origin is None:
        raise UsageError("render glyphs", "matplotlib, which brings the fonts, is not installed", "run `make install`")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"


def choose_glyphs(classes: int, seed: int) -> tuple[Glyph, ...]:
    """Draw `classes` of all glyphs by hash, sorted by codepoint. UsageError when there are not so many."""
    glyphs = all_glyphs()
    if classes > len(glyphs):
        there = len(glyphs)
        raise UsageError(f"render {classes} classes of glyphs", f"the fonts have {there}", f"ask for {there}")
    chosen = sorted(glyphs, key=lambda glyph: unit_hash("glyph class", seed, glyph.codepoint))[:classes]
    return tuple(sorted(chosen, key=lambda glyph: glyph.codepoint))


@lru_cache(maxsize=1)  # seconds of reading fonts
def all_glyphs() -> tuple[Glyph, ...]:
    """All classes that the fonts offer, by their lowest codepoint."""
    drawn: dict[int, dict[str, str]] = {}  # codepoint -> font -> outline
    forbidden: set[str] = set()
    for font in FONTS:
        for codepoint, outline in outlines(font):
            if not is_digit_like(codepoint):
                drawn.setdefault(codepoint, {})[font] = outline
            elif unicodedata.category(chr(codepoint)) != "Nl":  # Roman numerals and their like are drawn as letters
                forbidden.add(outline)
    groups = _merged(drawn)
    return tuple(
        Glyph(codepoint := min(group), tuple(font for font in FONTS if font in drawn[codepoint]))
        for group in sorted(groups, key=min)
        if not any(outline in forbidden for codepoint in group for outline in drawn[codepoint].values())
    )


def is_digit_like(codepoint: int) -> bool:
    """Numbers of any script (Unicode N*), and whatever NFKD turns into text with a digit."""
    return any(
        unicodedata.category(char).startswith("N") or char.isdigit()
        for char in chr(codepoint) + unicodedata.normalize("NFKD", chr(codepoint))
    )


def _is_letter(codepoint: int) -> bool:
    """A letter that is no composition: an accented one differs from its base by a few pixels only."""
    char = chr(codepoint)
    return unicodedata.category(char) in LETTERS and unicodedata.normalize("NFKD", char) == char


@lru_cache(maxsize=len(FONTS))
def outlines(font: str) -> tuple[tuple[int, str], ...]:
    """Each letter and each digit-like character with the digest of its outline; blanks and placeholders aside."""
    with TTFont(font_path(font), lazy=True) as opened:
        curves, names = opened["glyf"], opened.getBestCmap()
        placeholder = _outline(curves, ".notdef")
        wanted = {char: name for char, name in names.items() if _is_letter(char) or is_digit_like(char)}
        drawn = ((codepoint, _outline(curves, name)) for codepoint, name in wanted.items())
        return tuple((codepoint, one) for codepoint, one in drawn if one is not None and one != placeholder)


def _outline(curves: Any, name: str) -> str | None:
    """Digest of a glyph's curves, moved to the origin and brought to one size; None for a blank."""
    coordinates, ends, flags = curves[name].getCoordinates(curves)
    if not len(coordinates):
        return None
    points_N2 = np.array(coordinates, dtype=np.float64)
    points_N2 -= points_N2.min(axis=0)
    if not points_N2.max():
        return None
    grid_N2 = np.rint(points_N2 / points_N2.max() * _STEPS).astype(np.int16)
    return hashlib.sha256(grid_N2.tobytes() + repr((list(ends), list(flags))).encode()).hexdigest()


def _merged(drawn: dict[int, dict[str, str]]) -> list[list[int]]:
    """Groups of characters that some font draws alike."""
    first: dict[tuple[str, str], int] = {}
    alike = [(code, first.setdefault(one, code)) for code, fonts in drawn.items() for one in fonts.items()]
    ends = np.array(alike).T
    side = max(drawn) + 1
    _, group_of = connected_components(coo_array((np.ones(len(alike)), ends), shape=(side, side)), directed=False)
    groups: dict[int, list[int]] = {}
    for codepoint in drawn:
        groups.setdefault(int(group_of[codepoint]), []).append(codepoint)
    return list(groups.values())
