"""What to do with each node: run, resume, reuse, or refuse because it drifted. Pure: facts in, decisions out.

Knows records and attempts as data; reads no store and starts nothing.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vitpipe.infra.errors import DriftError, IntegrityError, StorageError, UsageError, VitpipeError
from vitpipe.pipeline.plan.damage import damage
from vitpipe.pipeline.plan.equals import place_of
from vitpipe.pipeline.plan.fingerprint import Fingerprint, differences
from vitpipe.pipeline.plan.planned import Action, Equals, Plan, Planned, Result, StoreFacts, spared
from vitpipe.pipeline.spec.catalog import accepts
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.pipeline.spec.text.written import located
from vitpipe.pipeline.store.attempts import Attempt, Refs, digests
from vitpipe.pipeline.store.node_status import committed_at
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.results import are_equal
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.sighting import OF_SOURCE, Sighted

KNOWN = Known()
NO_EQUALS = Equals()
NOTHING: Mapping[str, Estimate] = {}


def make_plan(
    graph: Graph,
    facts: StoreFacts,
    replacing: Sequence[str] = (),
    known: Known = KNOWN,
    assumed: Mapping[str, Estimate] = NOTHING,
) -> Plan:
    """Decide on every node. `replacing` names nodes that may be replaced, with all that depends on them.

    `assumed` are sizes, by node, of data that cannot be counted here: they affect estimates, not decisions.
    UsageError for a name in `replacing` that the graph does not have.
    """
    permitted = permit(graph, replacing)
    decided: dict[str, Planned] = {}
    outputs: dict[str, Artifact | Estimate] = {}
    for node in graph.nodes.values():
        one = _Case(node, graph, facts, decided, node.id in permitted).decide()
        if one.action == "reuse":
            record = one.adopts or facts.records[node.id]
            outputs[node.id] = record.artifact()
            one = replace(one, estimate=spared(record))
        else:
            one = _estimated(one, node, facts, outputs, known)
            if one.estimate.images is None and node.id in assumed:
                one = replace(one, estimate=assumed[node.id])
            outputs[node.id] = one.estimate
        decided[node.id] = one
    return Plan(decided)


def permit(graph: Graph, replacing: Sequence[str]) -> set[str]:
    """Find the nodes that may be replaced: those named and everything that depends on them."""
    named: set[str] = set()
    for name in replacing:
        found = graph.named(name)
        if not found:
            near = difflib.get_close_matches(name, graph.nodes, n=1, cutoff=0.0)
            raise UsageError(f"replace {name!r}", "no node of that name", f"did you mean {near[0]!r}?")
        named.update(found)
    return graph.downstream(named)


def refusal(plan: Plan, uri: str) -> VitpipeError | None:
    """Say why nothing of this plan may start, or None: the first node that cannot begin, else all that drifted."""
    for planned in plan.nodes.values():
        if planned.problem:
            return planned.problem
    drifted = plan.having("drifted")
    if not drifted:
        return None
    found = "; ".join(f"{one.node}: {', '.join(one.differences)}" for one in drifted)
    words = [f"--replace {one.node}" for one in drifted]
    words += ["--verify-sources"] if any(one.source and one.source.by_digest for one in drifted) else []
    do = f"give the run another `name`, or run with {' '.join(words)}"
    changes = [change for one in drifted for change in one.differences]
    of_source = [change for change in changes if change.startswith(OF_SOURCE)]
    if of_source:
        do += ", or put the files back, or set `resources.trust_source: true` to keep what was taken from them"
        do += " (`--verify-sources` looks all the same)"
    if any(change.startswith("config.total ") for change in changes):
        do += ", or train on in a new node with `needs: {continue: ...}`"
    what = "the source is other data than" if len(of_source) == len(changes) else "the recipe differs from"
    return DriftError(f"run {uri}", f"{what} what is committed: {found}", do)


@dataclass(frozen=True)
class _Case:
    """One node and all that bears on it."""

    node: Node
    graph: Graph
    facts: StoreFacts
    decided: Mapping[str, Planned]
    permitted: bool

    def decide(self) -> Planned:
        found = _problem(self.node, self.facts) or damage(self.node, self.graph, self.facts, self.permitted)
        if problem := found or self._moved():
            return self._planned("blocked", str(problem), problem=problem)
        upstream = [self.decided[id] for id in self.graph.upstream(self.node.id)]
        waits = tuple(one.node for one in upstream if one.action != "reuse" or one.adopts)
        inputs = None if waits else self.facts.inputs(self.node)
        committed = self.facts.records.get(self.node.id)
        if committed and inputs is not None and self._answers(committed, inputs):
            return self._planned("reuse", f"committed {committed_at(committed)} by {committed.record.attempt}")
        adopt = self._resumable(inputs)
        changes = self._changes(committed, inputs, waits, bool(adopt))
        if not committed and not changes and (equal := self._equal()):
            reason = f"equal to {place_of(equal.committed)}, committed {committed_at(equal.committed)}: adopted"
            return replace(self._planned("reuse", reason), adopts=equal.committed, source=equal.sighted)
        stuck = [one.node for one in upstream if one.action in ("drifted", "blocked")]
        if stuck and (self.permitted or all(change.startswith(("needs", "inputs")) for change in changes)):
            return self._planned("blocked", f"waits for {', '.join(stuck)}")
        if changes and not self.permitted:
            return self._planned("drifted", "; ".join(changes), changes)
        reason = f"{adopt[0].pieces} finished pieces of {adopt[0].name}" if adopt else "not committed yet"
        reason = f"after {', '.join(waits)}" if waits else reason
        if changes:
            reason += f"; replaces {committed.record.attempt if committed else 'what was begun'}: {'; '.join(changes)}"
        unfit = self.facts.equals.get(self.node.id, NO_EQUALS).unfit
        reason += f"; not adopted: {unfit}" if unfit else ""
        return self._planned("resume" if adopt else "run", reason, changes)

    def _equal(self) -> Result | None:
        """Find a result of another run that was made of what this node is given, or of the same bytes."""
        upstream = [self.decided[id] for id in self.graph.upstream(self.node.id)]
        if any(one.action != "reuse" for one in upstream):
            return None
        refs = {name: refs for name, refs in self.node.needs.items() if refs}
        given = {name: [self._given(ref) for ref in refs[name]] for name in refs}
        found = self.facts.equals.get(self.node.id, NO_EQUALS).results
        return next((one for one in found if are_equal(one.given, given)), None)

    def _given(self, ref: str) -> Committed:
        adopts = None if is_uri(ref) else self.decided[ref].adopts
        return adopts or self.facts.given(ref)

    def _answers(self, committed: Committed, inputs: Refs) -> bool:
        """Whether the record is the wanted result, of the data that its source has now, as far as one can see."""
        return committed.answers(self.wanted.sha256, inputs) and not (self.sighted and self.sighted.changes)

    def _moved(self) -> VitpipeError | None:
        """A revision on the Hub that is another commit than the one that was taken, unless that may be replaced."""
        if self.permitted or not self.sighted or not self.sighted.is_moved:
            return None
        do = f"write the commit that was taken behind the `@` to go on with it, or run with --replace {self.node.id}"
        found = "; ".join(change.removeprefix(OF_SOURCE) for change in self.sighted.changes)
        return IntegrityError(
            f"go on with {self.node.id}", f"a revision was moved: {found}", f"{do} to take the new one"
        )

    @property
    def sighted(self) -> Sighted | None:
        return self.facts.sighted.get(self.node.id)

    @property
    def wanted(self) -> Fingerprint:
        return self.facts.wanted[self.node.id]

    @property
    def attempts(self) -> Sequence[Attempt]:
        return self.facts.attempts.get(self.node.id, ())

    def _planned(
        self, action: Action, reason: str, changes: tuple[str, ...] = (), problem: VitpipeError | None = None
    ) -> Planned:
        return Planned(
            self.node.id,
            self.node.stage.name,
            action,
            reason,
            differences=changes,
            replaces=self.permitted,
            source=self.sighted,
            problem=problem,
        )

    def _resumable(self, inputs: Refs | None) -> list[Attempt]:
        if inputs is None:
            return []
        return [one for one in self.attempts if one.pieces and one.fits(self.wanted.sha256, inputs)]

    def _changes(
        self, committed: Committed | None, inputs: Refs | None, waits: Sequence[str], resumable: bool
    ) -> tuple[str, ...]:
        """Say how the result or attempt that is there differs from what is wanted; empty when none is in the way."""
        begun = [one for one in self.attempts if one.pieces]
        if not committed and (resumable or not begun):
            return ()
        old = committed.record if committed else begun[0]
        if found := differences(old.recipe, self.wanted.recipe):
            return tuple(found)
        source = self.sighted.changes if committed and self.sighted else ()
        if inputs is None:
            return source + tuple(f"inputs: {name} is computed again" for name in waits)
        before, now = digests(old.inputs), digests(inputs)
        return source + tuple(
            f"inputs.{name} record {_short(before.get(name))} -> {_short(now.get(name))}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        )


def _short(shas: list[str] | None) -> str:
    return ",".join(sha[:12] for sha in shas) if shas else "none"


def _problem(node: Node, facts: StoreFacts) -> VitpipeError | None:
    """Find what is wrong with an artifact of another run that the node names."""
    for name, refs in node.needs.items():
        for ref in filter(is_uri, refs):
            found = facts.external[ref]
            if isinstance(found, VitpipeError):
                return found
            kind = found.record.output["kind"]
            carries_weights = any(file.path.startswith("native/") for file in found.record.files)
            if not accepts(node.stage.inputs[name], kind, carries_weights):
                wrong = f"it is a {kind}, a {node.stage.inputs[name].kind} is needed"
                return UsageError(f"give {ref} to {node.id} as {name}", wrong, "name another artifact")
    return None


def _estimated(
    one: Planned, node: Node, facts: StoreFacts, outputs: Mapping[str, Artifact | Estimate], known: Known
) -> Planned:
    """Add to the decision what the node will cost; `blocked` when its stage says that it cannot begin."""
    if one.problem:
        return one
    given = {
        name: [facts.given(ref).artifact() if is_uri(ref) else outputs[ref] for ref in refs]
        for name, refs in node.needs.items()
    }
    try:
        return replace(one, estimate=node.stage.estimate_fn()(node.config, node.resources, given, known))
    except (UsageError, DriftError, StorageError, IntegrityError) as raised:
        error = located(raised, node.written)
        if one.action not in ("run", "resume"):
            return replace(one, estimate=Estimate(notes=(str(error),)))
        return replace(one, action="blocked", reason=str(error), problem=error)
