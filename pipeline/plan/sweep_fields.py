"""Which field a sweep means: one of a node, wherever it is nested, one of the machines, or one of `vars`."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.settings import Duration, Settings

USUAL = ("workers", "micro_batch", "batch_images", "image_px", "cpus_per_task", "network_gbit_per_s")
"""What is named where nothing is like the name that was asked for."""


def field_meant(name: str, spec: PipelineSpec, unit: str = "") -> tuple[str | None, str]:
    """Find the node, None for machines and `vars`, and the whole name of the field that a name means.

    A name is a whole one, or its end where one field alone has it; of several, that of the pretraining. With a `unit`
    it is a length of training, else a number. UsageError for a name that no such field has, or several.
    """
    if name.startswith("vars."):
        return None, _var(name, spec.vars)
    if name.startswith("nodes."):
        node = name.split(".")[1]
        if not spec.graph.named(node):
            raise _unknown(name, node, (one.name for one in spec.graph.nodes.values()), "no node of that name")
        return node, name
    if name in ClusterFacts.model_fields and not unit:
        return None, name
    fields = _fields(spec.graph, unit)
    meant = [path for path, node in fields.items() if _ends(path, name, node)]
    trained = [path for path in meant if spec.graph.nodes[spec.graph.named(fields[path])[0]].stage.name == "pretrain"]
    chosen = trained or meant
    if len(chosen) > 1:
        raise UsageError(f"sweep {name}", f"several fields end so: {', '.join(meant)}", "write one of these")
    if chosen:
        return fields[chosen[0]], chosen[0]
    raise _no_field(name, spec.graph, unit)


def _no_field(name: str, graph: Graph, unit: str) -> UsageError:
    """Say why a name cannot be swept so, and what may have been meant."""
    asked, fields = f"sweep {name}", _fields(graph, unit)
    if name in GpuKind.model_fields:
        return UsageError(asked, "it is a field of GPUs, not of machines", "plan once with each --gpus-file")
    if name in ("gpus", "num_gpus"):
        return UsageError(asked, "a plan has as many GPUs as its ranks ask for", "sweep workers, each with one GPU")
    lengths, numbers = _fields(graph, "steps"), {**_fields(graph), **dict.fromkeys(ClusterFacts.model_fields, "")}
    if not unit and any(_ends(path, name, node) for path, node in lengths.items()):
        return UsageError(asked, "it is a length of training", f"give it a unit, such as {name}='100,1000 steps'")
    if unit and any(path == name or _ends(path, name, node) for path, node in numbers.items()):
        return UsageError(asked, f"it is a number, and has no {unit}", f"write {name}=8,16,32")
    ends = {path.rpartition(".")[2] for path in (fields if unit else {**fields, **numbers})}
    found = f"no node has such a field in {unit}" if unit else "no node, and no machine, has such a field with numbers"
    return _unknown(name, name.rpartition(".")[2], ends, found)


def _fields(graph: Graph, unit: str = "") -> dict[str, str]:
    """List every field that takes a number, or with a unit a length, by its whole name, with its node's."""
    found: dict[str, str] = {}
    for one in graph.nodes.values():
        for part in ("resources", "config"):
            for path in _numbers(getattr(one, part), f"nodes.{one.name}.{part}", unit):
                found.setdefault(path, one.name)
    return found


def _numbers(settings: Settings, path: str, unit: str) -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value, inner = getattr(settings, name), f"{path}.{field.alias or name}"
        if isinstance(value, Settings):
            yield from _numbers(value, inner, unit)
        elif _takes(field.annotation, (Duration,) if unit else (int, float)):
            yield inner


def _takes(kind: Any, wanted: tuple[type, ...]) -> bool:
    """Whether one of these types is among the things that an annotation allows."""
    if get_origin(kind) is Literal:
        return any(type(one) in wanted for one in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return any(_takes(one, wanted) for one in get_args(kind))
    return _takes(get_args(kind)[0], wanted) if get_origin(kind) is Annotated else kind in wanted


def _ends(path: str, name: str, node: str) -> bool:
    """Whether a whole name ends with this one, which may open with the node's: `backbone.workers`."""
    return path.endswith((f".{name}", f".{name.removeprefix(f'{node}.')}"))


def _var(name: str, vars: Mapping[str, Any]) -> str:
    here: Any = vars
    for step in name.split(".")[1:]:
        known = here if isinstance(here, Mapping) else {}
        if step not in known:
            raise _unknown(name, step, map(str, known), "the YAML has no such entry of `vars`")
        here = known[step]
    return name


def _unknown(name: str, word: str, known: Iterable[str], found: str) -> UsageError:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.85)
    near = near or [
        one for one in names if one.startswith(word) or word.startswith(f"{one}_") or one.endswith(f"_{word}")
    ]
    near = near or difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    if near:
        return UsageError(f"sweep {name}", found, f"did you mean {' or '.join(map(repr, near[:3]))}?")
    usual = [one for one in USUAL if one in names]
    told = (
        f"name one such as {', '.join(usual)}; `vitpipe schema` has all" if usual else f"name one of {', '.join(names)}"
    )
    return UsageError(f"sweep {name}", found, told if names else "name a field of a node")
