"""Numbers and names as a person reads them: durations, sizes, counts, digests. Knows nothing of what they measure."""

import re

_GLYPH = re.compile(r"U\+(0?[0-9A-F]{4,5}|10[0-9A-F]{4}) ")
_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def duration(seconds: float | None) -> str:
    """Write seconds as `4 min 36 s`; a dash for what is not known."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(num_bytes: float | None) -> str:
    """Write bytes as `3.4 MiB`."""
    if num_bytes is None:
        return "–"
    scale, unit = next(((scale, unit) for scale, unit in _BINARY if num_bytes >= scale), (1, "B"))
    return f"{num_bytes / scale:.1f} {unit}" if scale > 1 else f"{num_bytes:.0f} B"


def count(number: float | None) -> str:
    """Write a number as `40,000`, and from a million on as `86.6 M`."""
    if number is None:
        return "–"
    return f"{number:,.0f}" if number < 1e6 else f"{number / 1e6:,.1f} M"


def flops(number: float | None) -> str:
    """Write operations as `1.27 PFLOP`."""
    if not number:
        return "–"
    scale, unit = next(((scale, unit) for scale, unit in _SI if number >= scale), (1, ""))
    shown = number / scale
    return f"{shown:,.0f} {unit}FLOP" if shown >= 1000 else f"{shown:.3g} {unit}FLOP"


def short(digest: str) -> str:
    """The first 12 digits of a digest, enough to recognise it."""
    return digest[:12]


def class_label(name: str) -> str:
    """A class as a caption shows it: of a glyph (`U+0041 LATIN CAPITAL LETTER A`) the character itself."""
    found = _GLYPH.match(name)
    character = chr(int(found[1], 16)) if found else ""
    return character if character.isprintable() and character.strip() else name


def last_part(uri: str) -> str:
    """The last part of a URI: the name of a node."""
    return uri.rstrip("/").rsplit("/", 1)[-1]
