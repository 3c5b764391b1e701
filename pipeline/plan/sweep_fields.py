"""Which field a sweep means: one of a node, wherever it is nested, one of the machines, or one of `vars`."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.settings import Settings

WHOLE = "write its whole name, such as nodes.backbone.resources.workers"


def field_meant(name: str, spec: PipelineSpec) -> tuple[str | None, str]:
    """Find the node, None for machines and `vars`, and the whole name of the field that a name means.

    A name is a whole one, or its end where one field alone has it; of several, that of the pretraining.
    UsageError for a name that no field has, or several.
    """
    if name.startswith("vars."):
        return None, _var(name, spec.vars)
    if name.startswith("nodes."):
        node = name.split(".")[1]
        if not spec.graph.named(node):
            raise _unknown(name, node, (one.name for one in spec.graph.nodes.values()), "no node of that name")
        return node, name
    if name in ClusterFacts.model_fields:
        return None, name
    fields = _fields(spec.graph)
    meant = [path for path, node in fields.items() if _ends(path, name, node)]
    trained = [path for path in meant if spec.graph.nodes[spec.graph.named(fields[path])[0]].stage.name == "pretrain"]
    chosen = trained or meant
    if len(chosen) > 1:
        raise UsageError(f"sweep {name}", f"several fields end so: {', '.join(meant)}", "write one of these")
    if chosen:
        return fields[chosen[0]], chosen[0]
    if name in GpuKind.model_fields:
        raise UsageError(f"sweep {name}", "it is a field of GPUs, not of machines", "plan once with each --gpus-file")
    ends = {path.rpartition(".")[2] for path in fields} | set(ClusterFacts.model_fields)
    raise _unknown(name, name.rpartition(".")[2], ends, "no node, and no machine, has such a field with numbers")


def _fields(graph: Graph) -> dict[str, str]:
    """List every field that takes a number by its whole name, with its node's."""
    found: dict[str, str] = {}
    for one in graph.nodes.values():
        for part in ("resources", "config"):
            for path in _numbers(getattr(one, part), f"nodes.{one.name}.{part}"):
                found.setdefault(path, one.name)
    return found


def _numbers(settings: Settings, path: str) -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value, inner = getattr(settings, name), f"{path}.{field.alias or name}"
        if isinstance(value, Settings):
            yield from _numbers(value, inner)
        elif _takes_number(field.annotation):
            yield inner


def _takes_number(kind: Any) -> bool:
    """Whether a number is one of the things that an annotation allows."""
    if get_origin(kind) is Literal:
        return any(type(one) in (int, float) for one in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return any(map(_takes_number, get_args(kind)))
    return _takes_number(get_args(kind)[0]) if get_origin(kind) is Annotated else kind in (int, float)


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
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return UsageError(f"sweep {name}", found, f"did you mean {near[0]!r}?" if near else WHOLE)
