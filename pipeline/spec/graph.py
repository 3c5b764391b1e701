"""Nodes and what each needs, in an order in which they can run. Knows stages by their table entry only."""

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitpipe.pipeline.spec.catalog import Stage
from vitpipe.pipeline.spec.foreach import Sibling, expand
from vitpipe.pipeline.spec.needs import Matcher
from vitpipe.pipeline.spec.text.given_files import with_contents
from vitpipe.pipeline.spec.text.given_places import still_relative
from vitpipe.pipeline.spec.text.problems import Problems
from vitpipe.pipeline.spec.text.references import refuse_rest
from vitpipe.pipeline.spec.text.typed import settings
from vitpipe.pipeline.spec.text.written import places
from vitpipe.pipeline.spec.text.yaml_source import plain
from vitpipe.pipeline.spec.top_level import Written
from vitpipe.stages.settings import Settings


@dataclass(frozen=True)
class Node:
    """One thing to run: a node of the YAML, or one sibling of a `foreach`."""

    id: str
    """`backbone`, or `transfer/b-16--cifar`: also its folder below the run."""
    stage: Stage
    config: Settings
    resources: Settings
    needs: Mapping[str, tuple[str, ...]]
    """Input name -> ids of nodes of this run, or URIs of artifacts of others (`is_uri`), in the order written."""
    raw: Mapping[str, Any]
    """The config mapping as written, with references filled in and without defaults."""
    written: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each field of the config and the resources is written: `source.root` -> `mine.yaml:17`."""

    @property
    def name(self) -> str:
        """The node's name in the YAML: the id without the sibling's."""
        return self.id.partition("/")[0]


@dataclass(frozen=True)
class Graph:
    """All nodes of a run; `nodes` is in topological order, ties in the order written."""

    nodes: Mapping[str, Node]

    def upstream(self, id: str) -> tuple[str, ...]:
        """List the nodes of this run that `id` needs directly, each once."""
        named = (ref for refs in self.nodes[id].needs.values() for ref in refs)
        return tuple(dict.fromkeys(ref for ref in named if not is_uri(ref)))

    def downstream(self, ids: set[str]) -> set[str]:
        """Add to the ids everything that depends on them."""
        reached = set(ids)
        for id in self.nodes:
            if reached.intersection(self.upstream(id)):
                reached.add(id)
        return reached

    def uris(self) -> tuple[str, ...]:
        """List the URIs of artifacts of other runs, each once, in order."""
        refs = (ref for node in self.nodes.values() for refs in node.needs.values() for ref in refs)
        return tuple(dict.fromkeys(ref for ref in refs if is_uri(ref)))

    def named(self, name: str) -> tuple[str, ...]:
        """List the ids meant by `node` (with all its siblings) or `node/id`; empty when there is none."""
        return tuple(id for id, node in self.nodes.items() if name in (id, node.name))


def is_uri(ref: str) -> bool:
    """Whether a need names an artifact of another run rather than a node of this one."""
    return "://" in ref


def build(nodes: Sequence[Written], broken: frozenset[str], folder: Path, problems: Problems) -> Graph:
    """Expand, type, connect and order the nodes. Raises SpecError with everything that is wrong.

    `broken` are the names of nodes that could not be read; `folder` is what relative URIs start from.
    """
    expanded = {node.name: expand(node, problems) for node in nodes}
    broken |= {name for name, siblings in expanded.items() if not siblings}
    siblings = [sibling for group in expanded.values() for sibling in group]
    for sibling in siblings:
        for part in ("needs", "config", "resources"):
            refuse_rest(getattr(sibling, part), f"{sibling.written.path}.{part}", problems)
    matcher = Matcher(siblings, broken, folder, problems)
    built = [_node(sibling, matcher.match(sibling), problems) for sibling in siblings]
    problems.stop()
    return _ordered({node.id: node for node in built if node}, {one.id: one for one in siblings}, problems)


def _node(sibling: Sibling, needs: Mapping[str, tuple[str, ...]], problems: Problems) -> Node | None:
    stage, path = sibling.written.stage, sibling.written.path
    for place, value in still_relative(sibling.config, stage.config_class()):
        problems.add(value.at, f"{path}.config.{place}", "write ./${each...}, so that it is clear where it starts")
    given_config = with_contents(sibling.config, stage.config_class(), f"{path}.config", problems)
    config = settings(given_config, stage.config_class(), f"{path}.config", problems)
    resources = settings(sibling.resources, stage.resources_class(), f"{path}.resources", problems)
    if config is None or resources is None:
        return None
    given = {name: len(refs) or 1 for name, refs in needs.items()}  # what names no node is reported as that
    for words in stage.check(config, resources, given):
        problems.add(sibling.config.at, path, words)
    written = {**dict(places(sibling.resources)), **dict(places(sibling.config))}
    return Node(sibling.id, stage, config, resources, needs, plain(sibling.config), written)


def _ordered(nodes: Mapping[str, Node], siblings: Mapping[str, Sibling], problems: Problems) -> Graph:
    """Order the nodes topologically, those that become ready together in the order written."""
    place = {id: index for index, id in enumerate(nodes)}
    graph = Graph(nodes)
    sorter = graphlib.TopologicalSorter({id: graph.upstream(id) for id in nodes})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle = list(reversed(error.args[1]))
        where = siblings[circle[0]]
        words = f"needs go round in a circle: {' -> '.join(circle)}"
        problems.add(where.needs.at, f"{where.written.path}.needs", words)
        raise problems.error() from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        order.extend(ready)
        sorter.done(*ready)
    return Graph({id: nodes[id] for id in order})
