"""The board's page: one HTML text that loads nothing and runs nothing, rendered from what runs were when looked at.

Every text (names, reasons, events, logs) is escaped by the template engine. Knows no store and no server.
"""

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from vitpipe.infra.curves import CurvePoint
from vitpipe.infra.events import Event
from vitpipe.pipeline.cli.board.costs import Try, so_far, tries
from vitpipe.pipeline.cli.board.drawing import drawn
from vitpipe.pipeline.cli.display import clock, duration
from vitpipe.pipeline.cli.run_tables import cost_text
from vitpipe.pipeline.cli.score_lines import number
from vitpipe.pipeline.store.followed import Look
from vitpipe.pipeline.store.held import HeldSoFar, Tried
from vitpipe.pipeline.store.node_status import NodeStatus
from vitpipe.stages.report.page import environment
from vitpipe.stages.report.pretraining import measured_title
from vitpipe.stages.report.several_runs import Overlay

TITLES = {
    "train/loss": "Training loss", "train/learning_rate": "Learning rate",
    "train/grad_norm": "Gradient norm before clipping", "train/images_per_second": "Images per second",
    "dev/accuracy": "Accuracy on the dev split", "test/accuracy": "Accuracy on the scored split",
    "shots/accuracy": "Accuracy by number of shots",
}  # fmt: skip
NOISY = ("train/loss", "train/grad_norm", "train/images_per_second")
OPEN_NODES = 6
"""Nodes whose curves are shown at once; those of further ones are folded."""
MAX_LINES = 40
"""Lines of one chart; a sweep of more shows the first so many."""
SHOWN_EVENTS = 60


@dataclass
class Board:
    """One run on the page: the last look at it, and its events so far."""

    look: Look
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=20_000))
    held: Mapping[Tried, HeldSoFar] = field(default_factory=dict)
    """What attempts that committed nothing have held."""
    trouble: str = ""
    """Why what is shown may be old."""

    def tries(self) -> list[Try]:
        """List the attempts that committed nothing, as far as its events tell."""
        nodes = self.look.status.nodes if self.look.status else ()
        return list(tries(self.events, {node.node for node in nodes if node.state == "running"}))


@dataclass(frozen=True)
class NodeCharts:
    """The curves of one node of all runs that have it."""

    node: str
    running: bool
    charts: tuple[Overlay, ...]
    single: tuple[str, ...]
    """What has one value alone, in words."""
    notes: tuple[str, ...]


def render(boards: Sequence[Board], *, made: str, refresh_s: int | None, price: float | None) -> str:
    """Fill the page; with `refresh_s` the browser asks for it again so often."""
    charts = sorted(_charts([board.look for board in boards]), key=lambda one: not one.running)
    return (
        _environment()
        .get_template("board.html.j2")
        .render(
            title=" · ".join(board.look.name for board in boards),
            runs=[_run(board, price) for board in boards],
            shown=charts[:OPEN_NODES],
            folded=charts[OPEN_NODES:],
            made=made,
            refresh_s=refresh_s,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    reports = environment()
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    assert reports.loader is not None
    return reports.overlay(loader=jinja2.ChoiceLoader([here, reports.loader]))


def _run(board: Board, price: float | None) -> dict[str, object]:
    look = board.look
    nodes = look.status.nodes if look.status else ()
    states = {node.node: node.state for node in nodes}
    cost = so_far(look.graph, look.committed, board.tries(), board.held, price) if look.graph else None
    return {
        "look": look,
        "trouble": board.trouble,
        "counts": {state: list(states.values()).count(state) for state in dict.fromkeys(states.values())},
        "cost": cost_text(cost) if cost else "",
        "graph": drawn(look.graph, states) if look.graph else Markup(""),
        "nodes": [_row(node, look) for node in nodes],
        "queue": [_waits(node) for node in nodes if node.state in ("waiting", "blocked") or node.waits],
        "events": list(board.events)[-SHOWN_EVENTS:][::-1],
    }


def _row(node: NodeStatus, look: Look) -> dict[str, object]:
    progress = node.progress or {}
    rate, loss = progress.get("images_per_second"), progress.get("loss")
    graph = look.graph
    return {
        "node": node.node,
        "stage": graph.nodes[node.node].stage.name if graph and node.node in graph.nodes else "",
        "state": node.state,
        "share": round(100 * (node.step or 0) / node.total_steps, 1) if node.total_steps else None,
        "done": f"{node.step or 0:,} / {node.total_steps:,}" if node.total_steps else "",
        "rate": f"{rate:,.0f}" if isinstance(rate, int | float) else "",
        "loss": f"{loss:.4g}" if isinstance(loss, int | float) else "",
        "left": clock(node.eta_seconds) if node.eta_seconds is not None else "",
        "took": duration(node.seconds) if node.seconds is not None else "",
        "score": number(node.score, node.metric),
        "why": node.why,
    }


def _waits(node: NodeStatus) -> dict[str, object]:
    waits = node.waits or {}
    return {"node": node.node, "state": node.state, "for": waits.get("for", ""), "why": waits.get("text") or node.why}


def _charts(looks: Sequence[Look]) -> Iterator[NodeCharts]:
    for node in dict.fromkeys(node for look in looks for node in look.curves):
        lines: dict[str, list[tuple[str, tuple[CurvePoint, ...]]]] = {}
        notes = [look.curves[node].note for look in looks if node in look.curves and look.curves[node].note]
        for look in looks:
            for tag, found in look.curves[node].tags.items() if node in look.curves else ():
                lines.setdefault(tag, []).extend((_called(look, of, looks), line) for of, line in found.items())
        if lines or notes:
            running = any(one.node == node and one.state == "running" for look in looks for one in _nodes(look))
            yield NodeCharts(node, running, tuple(_overlays(lines)), tuple(_single(lines)), tuple(notes))


def _nodes(look: Look) -> Iterable[NodeStatus]:
    return look.status.nodes if look.status else ()


def _called(look: Look, of: str, looks: Sequence[Look]) -> str:
    return " ".join(part for part in (look.name if len(looks) > 1 else "", of) if part) or look.name


def _overlays(lines: Mapping[str, Sequence[tuple[str, tuple[CurvePoint, ...]]]]) -> Iterator[Overlay]:
    names = list(dict.fromkeys(name for found in lines.values() for name, _ in found))
    for tag, found in lines.items():
        scale, unit = _scale(tag)
        drawable = [
            (name, names.index(name), [(float(point.step), scale * point.value) for point in line])
            for name, line in found[:MAX_LINES]
            if len(line) > 1
        ]
        if drawable:
            yield Overlay.draw(_title(tag), unit, drawable, smooth=tag in NOISY, zero=tag == "train/learning_rate")


def _single(lines: Mapping[str, Sequence[tuple[str, tuple[CurvePoint, ...]]]]) -> Iterator[str]:
    for tag, found in lines.items():
        scale, unit = _scale(tag)
        values = [
            f"{name} {scale * line[0].value:.4g}{f' {unit}' if unit else ''}" for name, line in found if len(line) == 1
        ]
        if values:
            yield f"{_title(tag)}: {'; '.join(values[:MAX_LINES])}"


def _scale(tag: str) -> tuple[float, str]:
    kind = tag.partition("/")[0]
    accuracy = kind in ("watch", "fewshot") or tag.endswith("/accuracy")
    return (100.0, "%") if accuracy else (1.0, "")


def _title(tag: str) -> str:
    return TITLES.get(tag) or measured_title(tag)
