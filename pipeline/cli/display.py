"""Plans and states as tables for a person and as lines for a log. Knows no store; everything is handed in."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitpipe.pipeline.cli.fitting import FittingTable
from vitpipe.pipeline.cli.outlook import data_words
from vitpipe.pipeline.cli.score_lines import number as score_number
from vitpipe.pipeline.cli.terminal import dropped, printable
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.prices import Machine
from vitpipe.pipeline.store.node_status import NodeStatus, RunStatus
from vitpipe.stages.images.wordnet import with_words
from vitpipe.stages.predict.image_files import Prediction, percent

_COLOURS = {
    "committed": "green", "running": "cyan", "waiting": "dim", "failed": "red", "blocked": "yellow",
    "run": "cyan", "resume": "cyan", "reuse": "green", "drifted": "red",
}  # fmt: skip
YEAR_S = 365.25 * 86_400
COSTS = ("steps", "images", "FLOPs", "memory", "time", "GPU-hours", "price", "size")


def show(what: RenderableType) -> None:
    """Print to standard output, as wide as it is."""
    Console().print(what)


def show_beside(what: RenderableType) -> None:
    """Print beside a command's work, which goes on where the terminal is closed."""
    try:
        show(what)
    except OSError as error:
        dropped.add(sys.stdout, error)


def loud(text: str) -> Text:
    """Write a sentence that nobody is to miss."""
    return Text(printable(text), style="bold yellow")


def plan_table(plan: Plan, uri: str) -> RenderableType:
    """Lay out each node with what will be done and what it will cost."""
    rows: list[tuple[RenderableType, ...]] = [
        (one.node, one.stage, _state(one.action), *(_costs(one)[name] for name in COSTS)) for one in plan.nodes.values()
    ]
    because = [_because(one) for one in plan.nodes.values()]
    headings = ("node", "stage", "do", *COSTS)
    return FittingTable(headings, rows, list(plan_lines(plan)), "because", because, title=f"plan of {uri}")


def status_table(status: RunStatus) -> RenderableType:
    """Lay out each node with its state, how far it is and why it waits."""
    headings = (
        "node",
        "state",
        "progress",
        "done",
        "images/s",
        "loss",
        "to go",
        "score",
        "spread",
        "took",
        "ended (UTC)",
    )
    rows: list[tuple[RenderableType, ...]] = []
    for node in status.nodes:
        bar = ProgressBar(node.total_steps, node.step or 0, width=20) if node.total_steps else ""
        count = f"{node.step}/{node.total_steps}" if node.total_steps else ""
        spread = score_number(node.std, node.metric)
        ends = (duration(node.seconds) if node.seconds is not None else "", when(node.ended))
        score = score_number(node.score, node.metric)
        rows.append((node.node, _state(node.state), bar, count, *_pace(node), score, spread, *ends))
    whys = [_why(node) for node in status.nodes]
    table = FittingTable(
        headings, rows, list(status_lines(replace(status, note="")))[1:], "why", whys, spare="progress"
    )
    head = [Text(f"{status.run}: {status.state}"), *([Text(printable(status.note))] if status.note else [])]
    return Group(*head, table) if status.nodes else Group(*head)


def when(moment: str | None) -> str:
    """Write a moment of a record for people: `2026-01-31 12:05`, in UTC as the record has it."""
    return moment[:16].replace("T", " ") if moment else ""


def _why(node: NodeStatus) -> str:
    if node.state == "committed" and node.ended and ";" not in node.why:
        return ""  # when and how long stand in columns of their own
    return str((node.progress or {}).get("note") or "") if node.state == "running" else node.why


def plan_lines(plan: Plan) -> Iterable[str]:
    """Write the plan as lines for a log."""
    for one in plan.nodes.values():
        words = ", ".join(f"{name} {value}" for name, value in _costs(one).items() if value)
        yield f"{one.node}: {one.action} ({_because(one)})" + (f": {words}" if words else "")


def total_line(total: Mapping[str, Any], machine: Machine) -> str:
    """Sum up the nodes still to run in one line: `4.7e+20 FLOPs, 331 GPU-hours of H100, price 993`."""
    words = [f"in all {short(total['flops'])} FLOPs"]
    words += [f"{short(total['gpu_hours'])} GPU-hours of {machine.name}"] if total["gpu_hours"] else []
    words += [f"price {short(total['price'])}"] if total["price"] is not None else []
    if total["price"] is None and total["gpu_hours"]:
        words += ["no price (give --price-per-gpu-hour)"]
    elif total["price"] is None and machine.price_per_gpu_hour is not None:
        words += ["no price (no GPU is needed: give price_per_core_hour by --cluster-file)"]
    words += [f"{short(total['energy_kwh'])} kWh"] if total["energy_kwh"] else []
    words += [f"not counting {', '.join(total['unknown'])}"] if total["unknown"] else []
    return ", ".join(words)


def status_lines(status: RunStatus) -> Iterable[str]:
    """Write the status as lines for a log."""
    yield f"{status.run}: {status.state}"
    if status.note:
        yield status.note
    for node in status.nodes:
        spread = f" +- {score_number(node.std, node.metric)}" if node.std is not None else ""
        words = [f"{node.metric} {score_number(node.score, node.metric)}{spread}" if node.score is not None else ""]
        words += [f"took {duration(node.seconds)}" if node.seconds is not None else ""]
        said_by_why = node.ended is not None and node.why.startswith(node.ended)
        words += [f"ended {node.why}"] if said_by_why else [f"ended {node.ended}" if node.ended else "", node.why]
        said = progress_line(node) if node.state == "running" else ", ".join(filter(None, words))
        yield f"{node.node}: {node.state}: {said}"


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
            table.add_row(first, Text(printable(with_words(label)), style), Text(percent(probability), style), bar)
    return Group(table, Text("each class by itself", style="dim")) if head == "sigmoid" else table


def progress_line(node: NodeStatus) -> str:
    """Say how far a running node is."""
    rate, loss, left = _pace(node)
    words = [node.why, rate and f"{rate} images/s", loss and f"loss {loss}", left and f"{left} to go"]
    return ", ".join(str(word) for word in words if word)


def duration(seconds: float) -> str:
    """Write `1:02:03`, `4:05` or `12 s`; beyond a century years, `4.85e+20 years`."""
    if seconds >= 100 * YEAR_S:
        return f"{seconds / YEAR_S:,.0f} years" if seconds < 1e6 * YEAR_S else f"{seconds / YEAR_S:.3g} years"
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}" if minutes else f"{whole} s"


def clock(seconds: float) -> str:
    """Write time to go, `0:41`, `1:02:03`, never none at all."""
    whole = max(1, round(seconds))
    return duration(whole) if whole >= 60 else f"0:{whole:02}"


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
    return "; ".join(filter(None, (one.reason, data_words(one), source, *one.estimate.notes, paper)))


def _pace(node: NodeStatus) -> tuple[str, str, str]:
    rate, loss = ((node.progress or {}).get(name) for name in ("images_per_second", "loss"))
    return (
        f"{rate:.0f}" if isinstance(rate, (int, float)) else "",
        f"{loss:.4g}" if isinstance(loss, (int, float)) else "",
        clock(node.eta_seconds) if node.eta_seconds is not None else "",
    )


def _state(name: str) -> Text:
    return Text(name, style=_COLOURS.get(name, ""))
