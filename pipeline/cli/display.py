"""Plans and states as tables for a person and as lines for a log. Knows no store; everything is handed in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitpipe.pipeline.cli.terminal import printable
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.store.status import NodeStatus, RunStatus
from vitpipe.stages.predict.image_files import Prediction

_COLOURS = {
    "committed": "green", "running": "cyan", "waiting": "dim", "failed": "red", "blocked": "yellow",
    "run": "cyan", "resume": "cyan", "reuse": "green", "drifted": "red",
}  # fmt: skip
COSTS = ("steps", "images", "FLOPs", "memory", "time", "GPU-hours", "price", "size")


def show(what: RenderableType) -> None:
    """Print to standard output, as wide as it is."""
    Console().print(what)


def plan_table(plan: Plan, uri: str) -> RenderableType:
    """Lay out each node with what will be done and what it will cost."""
    table = Table(title=f"plan of {uri}", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "stage", "do"):
        table.add_column(heading, no_wrap=True)
    table.add_column("because", ratio=1)
    columns = [name for name in COSTS if any(_costs(one)[name] for one in plan.nodes.values())]
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in plan.nodes.values():
        costs = _costs(one)
        table.add_row(one.node, one.stage, _state(one.action), Text(_because(one)), *(costs[name] for name in columns))
    return table


def status_table(status: RunStatus) -> RenderableType:
    """Lay out each node with its state, how far it is and why it waits."""
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
    """Write the plan as lines for a log."""
    for one in plan.nodes.values():
        words = ", ".join(f"{name} {value}" for name, value in _costs(one).items() if value)
        yield f"{one.node}: {one.action} ({_because(one)})" + (f": {words}" if words else "")


def total_line(total: Mapping[str, Any], gpu: str) -> str:
    """Sum up the nodes still to run in one line: `4.7e+20 FLOPs, 331 GPU-hours of H100, price 993`."""
    words = [f"in all {short(total['flops'])} FLOPs"]
    words += [f"{short(total['gpu_hours'])} GPU-hours of {gpu}"] if total["gpu_hours"] else []
    words += [f"price {short(total['price'])}"] if total["price"] is not None else []
    words += [f"not counting {', '.join(total['unknown'])}"] if total["unknown"] else []
    return ", ".join(words)


def status_lines(status: RunStatus) -> Iterable[str]:
    """Write the status as lines for a log."""
    yield f"{status.run}: {status.state}"
    for node in status.nodes:
        yield f"{node.node}: {node.state}: {progress_line(node) if node.state == 'running' else node.why}"


def prediction_table(answers: Sequence[Prediction], head: str) -> RenderableType:
    """Lay out each image with its most probable classes, one a line, or the reason why it has none."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("image", overflow="fold", max_width=48)
    table.add_column("class", overflow="fold", max_width=60)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for number, answer in enumerate(answers):
        if number and len(answers[number - 1].classes) > 1:
            table.add_row()
        image = Text(printable(str(answer.image)))
        if answer.reason is not None:
            table.add_row(image, Text(printable(answer.reason), style="red"))
        for place, (label, probability) in enumerate(answer.classes):
            first, style = (image, "bold") if place == 0 else ("", "")
            bar = ProgressBar(1.0, probability, width=20, complete_style="cyan", finished_style="cyan")
            table.add_row(first, Text(printable(label), style), Text(percent(probability), style), bar)
    return Group(table, Text("each class by itself", style="dim")) if head == "sigmoid" else table


def prediction_line(answer: Prediction) -> str:
    """Write one image as a line for a log."""
    if answer.reason is not None:
        return f"{answer.image}: not readable: {answer.reason}"
    return f"{answer.image}: " + ", ".join(f"{label} {percent(probability)}" for label, probability in answer.classes)


def percent(share: float) -> str:
    """Write `93.1 %`; a share above zero is never shown as zero."""
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "< 0.1 %"


def progress_line(node: NodeStatus) -> str:
    """Say how far a running node is."""
    facts = node.progress or {}
    rate, loss, left = _pace(facts)
    words = [node.why, rate and f"{rate} images/s", loss and f"loss {loss}", left and f"{left} to go"]
    return ", ".join(str(word) for word in words if word)


def duration(seconds: float) -> str:
    """Write `1:02:03`, `4:05` or `12 s`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}" if minutes else f"{whole} s"


def short(number: float | None, unit: str = "") -> str:
    """Write three digits and a power: `1.28M`, `4.1e21`."""
    if number is None:
        return ""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if scale <= abs(number) < 1e15:
            return f"{number / scale:.3g}{letter}{unit}"
    return f"{number:.3g}{unit}"


def _costs(one: Planned) -> dict[str, str]:
    cost = one.estimate
    values = (
        short(cost.steps),
        short(cost.images),
        short(cost.flops),
        short(cost.memory_bytes, "B"),
        duration(max(cost.hours * 3600, 1)) if cost.hours is not None else "",
        short(one.gpu_hours),
        short(one.price),
        short(cost.bytes, "B"),
    )
    return dict(zip(COSTS, values, strict=True))


def _because(one: Planned) -> str:
    paper = f"{one.paper} (vitpipe conform)" if one.deviations else one.paper
    source = one.source.note if one.source and one.source.is_loud else ""
    return "; ".join(filter(None, (one.reason, source, *one.estimate.notes, paper)))


def _pace(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    rate, loss, left = (facts.get(name) for name in ("images_per_second", "loss", "eta_seconds"))
    return (
        f"{rate:.0f}" if isinstance(rate, (int, float)) else "",
        f"{loss:.4g}" if isinstance(loss, (int, float)) else "",
        duration(left) if isinstance(left, (int, float)) else "",
    )


def _state(name: str) -> Text:
    return Text(name, style=_COLOURS.get(name, ""))
