"""A recipe against the paper's, field by field. Pure: plain values and a row in, findings out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vitpipe.stages.paper.recipes import Expected, RecipeRow
from vitpipe.stages.settings import Duration

Status = Literal["equal", "differs", "unstated"]


@dataclass(frozen=True)
class Finding:
    """How one field of a recipe compares with the paper."""

    field: str
    status: Status
    """equal: as the paper states; differs: otherwise; unstated: the paper is silent, whatever the recipe has."""
    ours: Any
    """The recipe's value."""
    wanted: tuple[Any, ...]
    """The paper's values, each of them right; where it is silent, what we assume."""
    where: str
    """Table or section of the paper; where it is silent, the source of the assumption."""
    as_assumed: bool = True
    """Whether the recipe has what we assume; only meaningful for unstated fields."""

    def to_json(self) -> dict[str, Any]:
        """The finding as `conform --json` prints it."""
        wanted = self.wanted[0] if len(self.wanted) == 1 else list(self.wanted)
        if self.status == "unstated":
            more = {"assumed": wanted, "as_assumed": self.as_assumed, "source": self.where}
        else:
            more = {"paper": wanted, "section": self.where}
        return {"field": self.field, "status": self.status, "config": self.ours, **more}

    def __str__(self) -> str:
        wanted = " or ".join(shown(one) for one in self.wanted)
        if self.status == "equal":
            return f"{self.field} {shown(self.ours)} ({self.where})"
        if self.status == "differs":
            return f"{self.field} {shown(self.ours)}, the paper has {wanted} ({self.where})"
        unlike = "" if self.as_assumed else f", we would assume {wanted}"
        return f"{self.field} {shown(self.ours)}{unlike} ({self.where})"


@dataclass(frozen=True)
class RecipeComparison:
    """A node's recipe compared with one of the paper's."""

    row: RecipeRow
    findings: tuple[Finding, ...]
    note: str = ""

    @property
    def deviations(self) -> tuple[Finding, ...]:
        """The fields in which the recipe differs from what the paper states."""
        return tuple(one for one in self.findings if one.status == "differs")


def compare(values: Mapping[str, Any], row: RecipeRow, batch_images: int) -> RecipeComparison:
    """Compare every field of the row with the recipe's value; a field that the recipe does not have counts as null.

    Lengths are durations; in different units they are compared as steps of `batch_images` on the row's data set.
    """
    return RecipeComparison(row, tuple(_find(values.get(one.field), one, row, batch_images) for one in row.expected))


def shown(value: Any) -> str:
    """Write a value as YAML would."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {shown(part)}' for name, part in value.items())}}}"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _find(ours: Any, expected: Expected, row: RecipeRow, batch_images: int) -> Finding:
    same = any(_same(ours, wanted, row.images, batch_images) for wanted in expected.wanted)
    status: Status = "unstated" if not expected.stated else "equal" if same else "differs"
    value = str(ours) if isinstance(ours, Duration) else ours
    return Finding(expected.field, status, value, expected.wanted, expected.where, same)


def _same(ours: Any, wanted: Any, epoch_images: int | None, batch_images: int) -> bool:
    if isinstance(ours, Duration):
        return _as_long(ours, Duration.parse(wanted), epoch_images, batch_images)
    if isinstance(ours, (list, tuple)) and isinstance(wanted, (list, tuple)):
        pairs = zip(ours, wanted, strict=False)
        return len(ours) == len(wanted) and all(_same(one, other, None, 0) for one, other in pairs)
    if _number(ours) and _number(wanted):
        return math.isclose(ours, wanted, rel_tol=1e-9)
    return type(ours) is type(wanted) and bool(ours == wanted)


def _as_long(ours: Duration, wanted: Duration, epoch_images: int | None, batch_images: int) -> bool:
    """Whether two lengths are equal; in different units, to within one step."""
    if ours.unit == wanted.unit:
        return math.isclose(ours.amount, wanted.amount, rel_tol=1e-9)
    if epoch_images is None and "epochs" in (ours.unit, wanted.unit):
        return False
    steps = [each.steps(batch_images, epoch_images or 0) for each in (ours, wanted)]
    return abs(steps[0] - steps[1]) <= 1


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
