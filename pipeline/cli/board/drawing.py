"""The graph of a run's nodes as one SVG: columns by how far a node is from the sources, colours by state.

Siblings of one entry are one box where they are many. Knows no store; every text is escaped.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from vitpipe.pipeline.spec.graph import Graph

MAX_SIBLINGS = 6
"""Siblings of one entry that get a box each."""
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 172, 34, 64, 12
WORST_FIRST = ("failed", "blocked", "running", "waiting", "committed")
MAX_LETTERS = 24


@dataclass
class GraphBox:
    """One box: a node, or all siblings of an entry."""

    name: str
    nodes: list[str] = field(default_factory=list)
    depth: int = 0
    x: int = 0
    y: int = 0


def drawn(graph: Graph, states: Mapping[str, str]) -> Markup:
    """Draw the graph; `states` by node."""
    boxes = _boxes(graph)
    of = {node: box for box in boxes.values() for node in box.nodes}
    arrows = {(of[up].name, of[id].name) for id in graph.nodes for up in graph.upstream(id)}
    columns: dict[int, int] = {}
    for box in boxes.values():
        box.depth = max((of[up].depth + 1 for id in box.nodes for up in graph.upstream(id)), default=0)
        row = columns.get(box.depth, 0)
        columns[box.depth] = row + 1
        box.x, box.y = box.depth * (BOX_WIDTH + GAP_X), row * (BOX_HEIGHT + GAP_Y)
    width = (max(columns, default=0) + 1) * (BOX_WIDTH + GAP_X) - GAP_X
    height = max(columns.values(), default=1) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    parts = [_arrow(boxes[one], boxes[other]) for one, other in sorted(arrows) if one != other]
    parts += [_drawn(box, states) for box in boxes.values()]
    opening = Markup('<svg class="graph" role="img" width="{0}" height="{1}" viewBox="-1 -1 {2} {3}" aria-label="{4}">')
    label = "; ".join(f"{id} {states.get(id, 'waiting')}" for id in graph.nodes)
    return (
        opening.format(width + 2, height + 2, width + 2, height + 2, label) + Markup("").join(parts) + Markup("</svg>")
    )


def _boxes(graph: Graph) -> dict[str, GraphBox]:
    siblings = Counter(node.name for node in graph.nodes.values())
    boxes: dict[str, GraphBox] = {}
    for id, node in graph.nodes.items():
        name = node.name if siblings[node.name] > MAX_SIBLINGS else id
        boxes.setdefault(name, GraphBox(name)).nodes.append(id)
    return boxes


def _arrow(one: GraphBox, other: GraphBox) -> Markup:
    x1, y1, x2, y2 = one.x + BOX_WIDTH, one.y + BOX_HEIGHT // 2, other.x, other.y + BOX_HEIGHT // 2
    bend = max(GAP_X // 2, (x2 - x1) // 3)
    return Markup('<path class="arrow" d="M{} {}C{} {} {} {} {} {}"/>').format(
        x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2
    )


def _drawn(box: GraphBox, states: Mapping[str, str]) -> Markup:
    here = Counter(states.get(id, "waiting") for id in box.nodes)
    state = next((state for state in WORST_FIRST if here[state]), "waiting")
    many = len(box.nodes) > 1
    name = f"{box.name} × {len(box.nodes)}" if many else box.name
    about = ", ".join(f"{here[state]} {state}" for state in WORST_FIRST if here[state]) if many else state
    whole = f"{name}: {about}"
    text = Markup('<text x="{}" y="{}">{}</text><text class="state" x="{}" y="{}">{}</text>').format(
        box.x + 12, box.y + 15, _short(name), box.x + 12, box.y + 28, _short(about)
    )
    frame = Markup(
        '<rect x="{}" y="{}" width="{}" height="{}" rx="6"/><rect class="side" x="{}" y="{}" width="5" height="{}"/>'
    )
    shape = frame.format(box.x, box.y, BOX_WIDTH, BOX_HEIGHT, box.x, box.y, BOX_HEIGHT)
    return Markup('<g class="box {}"><title>{}</title>{}{}</g>').format(state, whole, shape, text)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
