"""What the sections of the GPU check say, line by line into a file, and how it is read again. No torch.

A section that is cut off, or whose process dies, leaves every line that it wrote.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Cell = str | float | int | bool | None
"""What stands in a table: None for what was not measured."""


@dataclass(frozen=True)
class Way:
    """Where and how large a section is run."""

    device: str
    """`cuda:0` or `cpu`."""
    shrunk: bool
    """Tiny models and one or two steps: it shows that the section works, and measures nothing."""
    scratch: Path
    """A folder on the local disk that the section may fill."""
    seconds: float
    """How long it may take."""
    peak_flops: float | None = None
    """Dense bf16 FLOP/s that the vendor states for this GPU; None takes the matrix product that was measured."""

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.startswith("cuda")


class Findings:
    """A section's way to say what it found. Flushed line by line."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._until = path, time.monotonic() + seconds
        path.parent.mkdir(parents=True, exist_ok=True)

    def row(self, cells: Mapping[str, Cell], ok: bool | None = None) -> None:
        """Add a line to the section's table; `ok` says whether something that must hold did."""
        finite = {name: cell if _is_json(cell) else str(cell) for name, cell in cells.items()}
        self._write({"row": finite, "ok": ok})

    def note(self, text: str) -> None:
        """Add a sentence below the table."""
        self._write({"note": text})

    def left_out(self, what: str, why: str = "no time was left") -> None:
        """Name what was not measured."""
        self._write({"left_out": f"{what}: {why}"})

    def fact(self, name: str, value: Cell) -> None:
        """Keep a number that other parts of the report are made from."""
        self._write({"fact": {name: value}})

    def left(self) -> float:
        """Seconds until the section is cut off."""
        return self._until - time.monotonic()

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


@dataclass
class Told:
    """What came of one section."""

    name: str
    title: str
    proves: bool
    """Whether something must hold in it, or it only measures."""
    state: str = "left out"
    """`done`, `cut off` at its time, `failed`, `left out` for the reason in `why`, `not asked for`."""
    why: str = ""
    seconds: float = 0.0
    rows: list[dict[str, Cell]] = field(default_factory=list)
    verdicts: list[bool | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    facts: dict[str, Cell] = field(default_factory=dict)

    def take(self, line: str) -> None:
        """Take one line that a section wrote."""
        said = json.loads(line)
        if "row" in said:
            self.rows.append(said["row"])
            self.verdicts.append(said["ok"])
        elif "fact" in said:
            self.facts |= said["fact"]
        elif "note" in said:
            self.notes.append(said["note"])
        else:
            self.not_measured.append(said["left_out"])

    @property
    def wrong(self) -> bool:
        """Whether what must hold was not shown: something differed, or it did not come to its end."""
        if not self.proves or self.state == "not asked for":
            return False
        return self.state != "done" or False in self.verdicts or True not in self.verdicts

    @property
    def columns(self) -> list[str]:
        """Names of all cells, in the order in which they first came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def to_json(self) -> dict[str, Any]:
        """What the report's JSON says of it."""
        rows = [{**row, **({} if ok is None else {"ok": ok})} for row, ok in zip(self.rows, self.verdicts, strict=True)]
        told = {"name": self.name, "title": self.title, "state": self.state, "why": self.why}
        rest = {"seconds": round(self.seconds, 1), "rows": rows, "notes": self.notes, "facts": self.facts}
        return {**told, "wrong": self.wrong, **rest, "not_measured": self.not_measured}


def _is_json(cell: Cell) -> bool:
    return not isinstance(cell, float) or math.isfinite(cell)


def in_words(cell: Cell) -> str:
    """Write a cell as a table shows it: three digits that count."""
    if cell is None:
        return "—"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
