"""What `--sweep` asks for, before any spec is read: the name of a field and the numbers that it is to have."""

import math
import re
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError

MOST_VALUES = 64
FORM = "write numbers, such as --sweep workers=8,16,32"


_LENGTH = re.compile(r"(.*?)\s*([kM]?)\s*(epoch|step|image)s?")
_SCALED = re.compile(r"(.*?)\s*([kM])")


@dataclass(frozen=True)
class AskedValues:
    """A name and numbers, as they were written."""

    name: str
    values: tuple[float, ...]
    """Each once."""
    unit: str = ""
    """Of lengths: `epochs`, `steps` or `images`."""


def read(text: str) -> AskedValues:
    """Read `a.b=x,y,...,z`, or `a.b=x,y steps`. UsageError for what is no number, for several units, and for too many.

    `...` is filled in by the ratio of the two before it; between whole numbers stand whole numbers,
    between others such of six digits.
    """
    name, equals, listed = text.partition("=")
    if not equals or not name.strip() or not listed:
        raise UsageError(f"sweep {text!r}", "a field and its values are needed", FORM)
    name, found = name.strip(), list[float]()
    words, unit = _without_unit(name, [word.strip() for word in listed.split(",")])
    for place, word in enumerate(words):
        if word != "...":
            found.append(_number(name, word))
        elif len(found) < 2 or place + 1 >= len(words):
            raise UsageError(f"sweep {name}", "`...` stands between two values and a last one", FORM)
        else:
            found += _between(name, found[-2], found[-1], _number(name, words[place + 1]))
    values = tuple(dict.fromkeys(found))
    _refuse_many(name, len(values))
    return AskedValues(name, values, unit)


def _without_unit(name: str, words: list[str]) -> tuple[list[str], str]:
    """Take `steps` off `100`, `1k steps`: a unit that is written once is that of all."""
    found = [_LENGTH.fullmatch(word) for word in words]
    units = list(dict.fromkeys(f"{match[3]}s" for match in found if match))
    if not units:
        return words, ""
    if len(units) > 1:
        raise UsageError(f"sweep {name}", f"{' and '.join(units)} are no one unit", "write all values in one")
    plain = list[str]()
    for word, match in zip(words, found, strict=True):
        scaled = match or _SCALED.fullmatch(word)
        plain.append(f"{scaled[1]}{ {'k': 'e3', 'M': 'e6'}.get(scaled[2], '') }" if scaled else word)
    return plain, units[0]


def written(value: float) -> str:
    """Write a number as YAML reads it back: a whole one without a point."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _between(name: str, first: float, second: float, last: float) -> list[float]:
    """Fill in `...`, without its ends."""
    if not 0 < first < second <= last:
        found = f"`...` goes up, by the ratio of the two before it, not from {first:g}, {second:g} to {last:g}"
        raise UsageError(f"sweep {name}", found, "write the least first")
    ratio = second / first
    count = math.floor((math.log(last) - math.log(second)) / math.log(ratio) + 1e-9)
    _refuse_many(name, count)
    steps = [second * ratio**step for step in range(1, count + 1)]
    is_whole = all(one.is_integer() for one in (first, second, last))
    steps = [float(round(step)) if is_whole else float(f"{step:.6g}") for step in steps]
    return [step for step in steps if step < last]


def _refuse_many(name: str, count: int) -> None:
    if count > MOST_VALUES:
        raise UsageError(f"sweep {name}", f"these are more than {MOST_VALUES} values", "name fewer, or a larger ratio")


def _number(name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"sweep {name}", f"{word!r} is no number", FORM)
    return value
