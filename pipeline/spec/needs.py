"""Turn the names under `needs` into node ids and URIs: which siblings are meant, and whether their output fits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vitpipe.pipeline.spec.catalog import Need, accepts
from vitpipe.pipeline.spec.foreach import Sibling
from vitpipe.pipeline.spec.places import absolute_uri
from vitpipe.pipeline.spec.text.problems import Problems, shown, unknown
from vitpipe.pipeline.spec.text.yaml_source import Value


class Matcher:
    """Knows all siblings of a run, and finds what a need of one of them means."""

    def __init__(self, siblings: Sequence[Sibling], broken: frozenset[str], folder: Path, problems: Problems) -> None:
        """`broken` are nodes that exist but could not be read: their problems are reported elsewhere."""
        self.problems, self.folder, self.broken = problems, folder, broken
        self.by_node: dict[str, list[Sibling]] = {}
        for sibling in siblings:
            self.by_node.setdefault(sibling.written.name, []).append(sibling)
        self.by_id = {sibling.id: sibling for sibling in siblings}

    def match(self, sibling: Sibling) -> dict[str, tuple[str, ...]]:
        """Find every input of the sibling; what does not fit is reported."""
        node, path = sibling.written, f"{sibling.written.path}.needs"
        if not isinstance(sibling.needs.data, Mapping):
            self.problems.add(sibling.needs.at, path, "must map input names to nodes")
            return {}
        found = {}
        for name, value in sibling.needs.data.items():
            need = node.stage.inputs.get(name)
            if need is None:
                words = unknown(f"input of {node.stage.name}", name, node.stage.inputs)
                self.problems.add(value.at, f"{path}.{name}", words)
            else:
                found[name] = self._input(sibling, value, f"{path}.{name}", need)
        for name, need in node.stage.inputs.items():
            if need.required and name not in sibling.needs.data:
                self.problems.add(sibling.needs.at, f"{path}.{name}", f"{node.stage.name} needs a {need.kind} here")
        return found

    def _input(self, sibling: Sibling, value: Value, path: str, need: Need) -> tuple[str, ...]:
        refs, is_list = self._resolve(sibling, value, path)
        if is_list and not need.many:
            listed = f": {', '.join(refs)}" if refs else ""
            self.problems.add(value.at, path, f"takes a single {need.kind}, and this is a list{listed}")
        if twice := {ref for ref in refs if refs.count(ref) > 1}:
            self.problems.add(value.at, path, f"names {', '.join(sorted(twice))} more than once")
        if value.data == ():
            self.problems.add(value.at, path, "is an empty list; leave the input out instead")
        for ref in refs:
            given = self.by_id.get(ref)
            if given and not accepts(need, given.written.stage.output, given.written.stage.carries_weights):
                stage = given.written.stage
                words = f"takes a {need.kind}, and {ref} ({stage.name}) gives a {stage.output}"
                self.problems.add(value.at, path, words)
        return refs

    def _resolve(self, sibling: Sibling, value: Value, path: str) -> tuple[tuple[str, ...], bool]:
        """Find what a need names, and whether that is a list, even of one."""
        if isinstance(value.data, tuple):
            inner = [self._resolve(sibling, part, f"{path}[{index}]")[0] for index, part in enumerate(value.data)]
            return tuple(ref for refs in inner for ref in refs), True
        if not isinstance(value.data, str):
            self.problems.add(value.at, path, "must be a node, `node/id`, a list of them, or the URI of an artifact")
            return (), False
        if "://" in value.data:
            return self._uri(value, value.data, path), False
        if "/" in value.data:
            return self._one(value, value.data, path), False
        return self._node(sibling, value, value.data, path)

    def _uri(self, value: Value, uri: str, path: str) -> tuple[str, ...]:
        try:
            return (absolute_uri(uri, self.folder),)
        except ValueError as error:
            self.problems.add(value.mark, path, f"not the URI of an artifact: {error}")
            return ()

    def _one(self, value: Value, id: str, path: str) -> tuple[str, ...]:
        name = id.partition("/")[0]
        if id in self.by_id:
            return (id,)
        if name in self.by_node:
            known = [sibling.id for sibling in self.by_node[name]]
            self.problems.add(value.mark, path, unknown("sibling", id, known))
        elif name not in self.broken:
            self.problems.add(value.mark, path, unknown("node", name, {*self.by_node, *self.broken}))
        return ()

    def _node(self, sibling: Sibling, value: Value, name: str, path: str) -> tuple[tuple[str, ...], bool]:
        """Find all siblings of the named node that agree with this one on the `foreach` keys that both have."""
        if name not in self.by_node:
            if name not in self.broken:
                self.problems.add(value.mark, path, unknown("node", name, {*self.by_node, *self.broken}))
            return (), False
        candidates = self.by_node[name]
        theirs = set(candidates[0].keys)
        shared = theirs & set(sibling.keys)
        agreeing = [one for one in candidates if all(one.keys[key] == sibling.keys[key] for key in shared)]
        if not agreeing:
            wanted = ", ".join(f"{key} {shown(sibling.keys[key])}" for key in sorted(shared))
            self.problems.add(value.mark, path, f"no sibling of {name} has {wanted}, as {sibling.id} does")
        return tuple(one.id for one in agreeing), shared != theirs
