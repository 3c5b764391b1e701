"""What no plan could know before images were read, asked again before a training begins: are the classes the same?

A node that matches classes by name waits for two lists. Once what names them is ingested, its estimate is asked again,
and a training that would end in nothing is not begun. Knows no class and no stage, only who waits for names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vitpipe.infra.errors import VitpipeError
from vitpipe.pipeline.plan.decide import KNOWN
from vitpipe.pipeline.plan.planned import Plan, StoreFacts
from vitpipe.pipeline.spec.graph import Graph, is_uri
from vitpipe.pipeline.spec.text.written import located
from vitpipe.pipeline.store.records import Committed
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.estimates import Estimate, Known

TRAININGS = ("pretrain", "finetune")


@dataclass
class Foresight:
    """For one walk: which trainings wait for names, and what is wrong once these are known."""

    graph: Graph
    plan: Plan
    facts: StoreFacts
    known: Known = KNOWN
    """What estimates may assume of the machines."""
    _asked: set[str] = field(default_factory=set)
    """Nodes that were told to match, or not to."""

    def awaited(self, training: str, settled: set[str]) -> set[str]:
        """List what `training` waits for: what names the classes of nodes after it, without those that are settled."""
        return {up for id in self.unmatched(training) for up in self._namers(id)} - settled - {training}

    def mismatches(self, training: str, committed: Mapping[str, Committed]) -> Iterator[tuple[str, VitpipeError]]:
        """Yield the nodes after `training` whose classes, known by now, do not match; each node is asked once."""
        for id in self.unmatched(training):
            if id in self._asked:
                continue
            self._asked.add(id)
            try:
                self._estimate(id, committed, {})
            except VitpipeError as error:
                yield id, located(error, self.graph.nodes[id].written)

    def estimate(self, id: str, committed: Mapping[str, Committed]) -> Estimate:
        """Ask what a node costs, by what is committed now. VitpipeError where its stage refuses it."""
        found = self._estimate(id, committed, {})
        return found if isinstance(found, Estimate) else Estimate()

    def unmatched(self, training: str) -> list[str]:
        """List the nodes after a training of which the plan could not say whether their classes match."""
        if self.graph.nodes[training].stage.name not in TRAININGS:
            return []
        after = self.graph.downstream({training})
        return [one.node for one in self.plan.due if one.node in after and one.estimate.unmatched]

    def _namers(self, id: str) -> set[str]:
        """Find the nodes upstream, due and of unknown names, that need nothing trained: sources of data or weights."""
        found, open_nodes = set[str](), [id]
        while open_nodes:
            for up in self.graph.upstream(open_nodes.pop()):
                if up in found:
                    continue
                open_nodes.append(up)
                found.add(up)
        due = {one.node for one in self.plan.due if one.estimate.class_names is None}
        trained = {one for one in found if self.graph.nodes[one].stage.name in TRAININGS}
        return (found & due) - self.graph.downstream(trained)

    def _estimate(
        self, id: str, committed: Mapping[str, Committed], known: dict[str, Artifact | Estimate]
    ) -> Artifact | Estimate:
        """Ask the stages from what is committed on; nothing that names itself is asked anew."""
        if id not in known:
            node = self.graph.nodes[id]
            if id in committed:
                known[id] = committed[id].artifact()
            elif not self.graph.upstream(id):
                known[id] = self.plan.nodes[id].estimate
            else:
                given = {
                    name: [self._given(ref, committed, known) for ref in refs] for name, refs in node.needs.items()
                }
                known[id] = node.stage.estimate_fn()(node.config, node.resources, given, self.known)
        return known[id]

    def _given(
        self, ref: str, committed: Mapping[str, Committed], known: dict[str, Artifact | Estimate]
    ) -> Artifact | Estimate:
        return self.facts.given(ref).artifact() if is_uri(ref) else self._estimate(ref, committed, known)
