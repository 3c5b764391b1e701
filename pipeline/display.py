"""Plans and states as tables for a person and as lines for a log. Knows no store; everything is handed in."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.planned import Plan, Planned
from pipeline.status import NodeStatus, RunStatus

_COLOURS = {
    "committed": "green", "running": "cyan", "waiting": "dim", "failed": "red", "blocked": "yellow",
    "run": "cyan", "resume": "cyan", "reuse": "green", "drifted": "red",
}  # fmt: skip


def show(what: RenderableType) -> None:
    """Print to standard output, as wide as it is."""
    Console().print(what)


def plan_table(plan: Plan, uri: str) -> RenderableType:
    """Each node with what will be done and what it will cost."""
    table = Table(title=f"plan of {uri}", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "stage", "do"):
        table.add_column(heading, no_wrap=True)
    table.add_column("because", ratio=1)
    for heading in ("steps", "images", "FLOPs", "memory", "time", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in plan.nodes.values():
        table.add_row(one.node, one.stage, _state(one.action), Text(_because(one)), *_costs(one))
    return table


def status_table(status: RunStatus) -> RenderableType:
    """Each node with its state, how far it is and why it waits."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("progress", "", "images/s", "loss", "to go"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why", ratio=1)
    for node in status.nodes:
        facts = node.progress or {}
        bar = ProgressBar(node.total_steps, node.step or 0, width=20) if node.total_steps else ""
        count = f"{node.step}/{node.total_steps}" if node.total_steps else ""
        running = node.state == "running"
        why = str(facts.get("note", "")) if running else node.why
        table.add_row(node.node, _state(node.state), bar, count, *_pace(facts), Text(why, style="dim"))
    return Group(Text(f"{status.run}: {status.state}"), table)


def plan_lines(plan: Plan) -> Iterable[str]:
    """The plan for a log."""
    for one in plan.nodes.values():
        names = ("steps", "images", "FLOPs", "memory", "time", "size")
        words = ", ".join(f"{name} {value}" for name, value in zip(names, _costs(one), strict=True) if value)
        yield f"{one.node}: {one.action} ({_because(one)})" + (f": {words}" if words else "")


def status_lines(status: RunStatus) -> Iterable[str]:
    """The status for a log."""
    yield f"{status.run}: {status.state}"
    for node in status.nodes:
        yield f"{node.node}: {node.state}: {progress_line(node) if node.state == 'running' else node.why}"


def progress_line(node: NodeStatus) -> str:
    """How far a running node is, in words."""
    facts = node.progress or {}
    rate, loss, left = _pace(facts)
    words = [node.why, rate and f"{rate} images/s", loss and f"loss {loss}", left and f"{left} to go"]
    return ", ".join(str(word) for word in words if word)


def duration(seconds: float) -> str:
    """`1:02:03`, `4:05` or `12 s`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}" if minutes else f"{whole} s"


def short(number: float | None, unit: str = "") -> str:
    """Three digits and a power: `1.28M`, `4.1e21`."""
    if number is None:
        return ""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if scale <= abs(number) < 1e15:
            return f"{number / scale:.3g}{letter}{unit}"
    return f"{number:.3g}{unit}"


def _costs(one: Planned) -> tuple[str, ...]:
    cost = one.estimate
    time = duration(max(cost.hours * 3600, 1)) if cost.hours is not None else ""
    work = short(cost.steps), short(cost.images), short(cost.flops)
    return (*work, short(cost.memory_bytes, "B"), time, short(cost.bytes, "B"))


def _because(one: Planned) -> str:
    return "; ".join((one.reason, *one.estimate.notes))


def _pace(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    rate, loss, left = (facts.get(name) for name in ("images_per_second", "loss", "eta_seconds"))
    return (
        f"{rate:.0f}" if isinstance(rate, (int, float)) else "",
        f"{loss:.4g}" if isinstance(loss, (int, float)) else "",
        duration(left) if isinstance(left, (int, float)) else "",
    )


def _state(name: str) -> Text:
    return Text(name, style=_COLOURS.get(name, ""))
