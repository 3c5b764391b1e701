"""What a plan and a beginning run say beside the table: the data, notes, and why nothing would start. Lines of text."""

from collections.abc import Iterable

from vitpipe.infra.errors import VitpipeError
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.stages.images.wordnet import with_words

_SPLITS = ("train", "val", "test")
NAMES_TOLD = 4
"""Names of classes that a line has, of one more than so many."""
NAME_SHOWN = 40


def outlook(plan: Plan) -> Iterable[str]:
    """Write what a run says as it begins: the classes and images of each set, then each note once."""
    for one in plan.nodes.values():
        if words := data_words(one):
            yield f"{one.node}: {words}"
    noted: dict[str, list[str]] = {}
    for one in plan.nodes.values():
        for note in one.notes:
            noted.setdefault(note, []).append(one.node)
    for note, nodes in noted.items():
        yield f"{nodes[0]}{f' and {len(nodes) - 1} more' if len(nodes) > 1 else ''}: {note}"


def data_words(one: Planned) -> str:
    """Write what an ingest gives: `4 classes: cat, dog, emu, fox; train 160, val 40`; nothing of other nodes."""
    if one.stage != "ingest":
        return ""
    count, names, splits = one.estimate.num_classes, one.estimate.class_names or (), one.estimate.splits or {}
    classes = "" if count is None else f"{count:,} class{'' if count == 1 else 'es'}"
    if names:
        rest = len(names) - NAMES_TOLD if len(names) > NAMES_TOLD + 1 else 0
        told = [shortened(with_words(name)) for name in (names[:NAMES_TOLD] if rest else names)]
        classes += f": {', '.join(told)}{f' and {rest:,} more' if rest else ''}"
    known = sorted(splits, key=lambda name: (_SPLITS.index(name) if name in _SPLITS else len(_SPLITS), name))
    return "; ".join(filter(None, (classes, ", ".join(f"{name} {splits[name]:,}" for name in known))))


def shortened(name: str) -> str:
    """Cut a name that would fill a line."""
    return name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 3]}..."


def standstill(plan: Plan, refused: VitpipeError | None) -> str:
    """Say why a run would start nothing, however much of the plan is due; empty where it would start something."""
    if refused is None:
        return "" if plan.due else f"Nothing would start: {len(plan.nodes)} of {len(plan.nodes)} nodes are committed"
    if blocked := [one.node for one in plan.nodes.values() if one.problem]:
        names = f"{', '.join(blocked)} {'is' if len(blocked) == 1 else 'are'} blocked"
        return f"Nothing would start: {names}, and a run begins no node before that is mended"
    drifted = [one.node for one in plan.having("drifted")]
    return f"Nothing would start: {', '.join(drifted)} drifted from what is committed; {refused.do}"
