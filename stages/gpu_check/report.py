"""The report of a GPU check: lines for a terminal, JSON, Markdown tables, and a table of the GPU for `plan`. No torch.

Written anew whenever something was found, so that a check that is cut off leaves what it had.
"""

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.gpu_check.findings import Cell, Told, in_words
from vitpipe.stages.gpu_check.sections import versions

SCHEMA = 1
JSON_NAME, TABLES, GPUS = "report.json", "report.md", "gpus.yaml"


@dataclass
class CheckReport:
    """What all sections told, and where it is kept."""

    folder: Path
    shrunk: bool
    sections: list[Told] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    started: float = field(default_factory=time.time)
    _widths: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the folder. UsageError where that, or a file in it, cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write()
        except OSError as error:
            found = f"{error.filename or self.folder}: {error.strerror or error}"
            do = "give --out a folder that this user may make and write"
            raise UsageError(f"keep the report in {self.folder}", found, do) from error

    @property
    def wrong(self) -> list[str]:
        """Names of sections in which something that must hold was not shown."""
        return [told.name for told in self.sections if told.wrong]

    def to_json(self) -> dict[str, Any]:
        """All that was found, as data."""
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
        head = {"schema": SCHEMA, "started": began, "shrunk": self.shrunk, "versions": self.versions}
        return {**head, "wrong": self.wrong, "sections": [told.to_json() for told in self.sections]}

    def write(self) -> None:
        """Put the files into the folder, each whole or as it was."""
        _put(self.folder / JSON_NAME, json.dumps(self.to_json(), indent=1) + "\n")
        _put(self.folder / TABLES, self.markdown())
        if table := gpu_table(self):
            _put(self.folder / GPUS, table)

    def lines(self, told: Told) -> list[str]:
        """Spell the newest row for a terminal, below the names of its cells where they are new."""
        row, names = told.rows[-1], list(told.rows[-1])
        fresh = len(told.rows) == 1 or list(told.rows[-2]) != names
        if fresh:
            self._widths[told.name] = [max(len(name), len(in_words(row[name])), 7) for name in names]
        widths = self._widths[told.name]
        mark = {None: "   ", True: "ok ", False: "BAD"}[told.verdicts[-1]]
        spelled = [in_words(row[name]) for name in names]
        head = ["    " + "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)).rstrip()]
        body = "  ".join(cell.ljust(width) for cell, width in zip(spelled, widths, strict=True)).rstrip()
        return [*(head if fresh else []), f"{mark} {body}"]

    def ending(self, told: Told) -> list[str]:
        """Spell what stands below a section's table."""
        said = [f"    {note}" for note in told.notes]
        said += [f"    not measured: {what}" for what in told.not_measured]
        if told.state != "done":
            said.append(f"{'BAD' if told.wrong else '   '} {told.state}: {told.why}")
        return said

    def markdown(self) -> str:
        """All tables, as a page."""
        began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.started))
        said = ", ".join(f"{name} {found}" for name, found in self.versions.items())
        parts = [f"# GPU check of {began}", "", f"{said}."]
        if self.shrunk:
            parts += ["", "Shrunk to a CPU: it shows that the check works, and measures nothing."]
        parts += ["", f"Not shown: {', '.join(self.wrong)}." if self.wrong else "All that must hold was shown."]
        for told in self.sections:
            if told.state != "not asked for":
                parts += ["", f"## {told.title}", "", *_table(told)]
        return "\n".join(parts) + "\n"


def _table(told: Told) -> list[str]:
    parts: list[str] = []
    if told.rows:
        shown = [*told.columns, *(["holds"] if any(ok is not None for ok in told.verdicts) else [])]
        parts += [f"| {' | '.join(shown)} |", "|" + "---|" * len(shown)]
        for row, ok in zip(told.rows, told.verdicts, strict=True):
            cells: dict[str, Cell] = {**row, "holds": ok}
            parts.append(f"| {' | '.join(in_words(cells.get(name)).replace('|', '/') for name in shown)} |")
        parts.append("")
    parts += [*told.notes, *(f"Not measured: {what}." for what in told.not_measured)]
    if told.state != "done":
        parts.append(f"{told.state.capitalize()}: {told.why}.")
    return parts


def gpu_table(report: CheckReport) -> str | None:
    """The measured GPU as `plan --gpus-file` reads it; None where no step of ours was measured on one.

    YAML without a library: this must be written where none is.
    """
    told = {one.name: one for one in report.sections}
    if report.shrunk or "name" not in getattr(told.get("machine"), "facts", ()) or not (speed := told.get("speed")):
        return None
    machine, peak = told["machine"].facts, speed.facts.get("peak_flops")
    found = {name.removeprefix("utilisation "): value for name, value in speed.facts.items() if "utilisation " in name}
    if not found or not peak:
        return None
    middle = sorted(float(value or 0) for value in found.values())[(len(found) - 1) // 2]
    kind = json.dumps(kind_of(str(machine["name"])))
    lines = [f"# measured by `vitpipe doctor --gpu`, {time.strftime('%Y-%m-%d', time.gmtime(report.started))}"]
    lines += [f"# {speed.facts['peak is']}; utilisation is of it", f"{kind}:", f"  peak_flops: {_number(peak)}"]
    for name in ("memory_bytes", "memory_bandwidth", "nvlink_bytes_per_s", "watts"):
        if machine.get(name) is not None:
            lines.append(f"  {name}: {_number(machine[name])}")
    lines += ["  utilisation:", f"    default: {middle:.4f}"]
    lines += [f"    {json.dumps(name)}: {float(value or 0):.4f}" for name, value in sorted(found.items())]
    return "\n".join(lines) + "\n"


def kind_of(name: str) -> str:
    """Shorten the driver's name of a GPU to what tables call its kind: `NVIDIA H100 80GB HBM3` is an H100."""
    found = re.match(r"(?:NVIDIA )?(?:Tesla )?((?:GB|GH|[A-Z])\d{1,3}[A-Z]?)\b", name)
    return found[1] if found else name.removeprefix("NVIDIA ")


def _number(value: Cell) -> str:
    return f"{float(value or 0):.0f}"


def _put(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)
