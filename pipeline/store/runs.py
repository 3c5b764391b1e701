"""The RUN of the command line, `STORE/NAME` or the path of a YAML: where that run lies, and its nodes."""

from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.spec.places import absolute_uri
from vitpipe.pipeline.spec.text.problems import shown, unknown
from vitpipe.pipeline.spec.top_level import NAME
from vitpipe.pipeline.store.accepted_spec import accepted_graph
from vitpipe.pipeline.store.contents import is_run, open_run

_WRITE = "write STORE/NAME or the path of a YAML"


@dataclass(frozen=True)
class Run:
    """A run's place; `store` is rooted at its folder."""

    name: str
    store: Store

    @property
    def uri(self) -> str:
        """Where the run lies: `{store}/{name}`."""
        return self.store.uri


def find_run(text: str) -> Run:
    """Find what RUN names; a local folder may also be a plain path. Errors: UsageError; SpecError of a YAML."""
    if "://" not in text:
        if text.endswith((".yaml", ".yml")) or Path(text).is_file():
            return _of_yaml(Path(text))
        text = f"file://{Path(text).absolute()}"
    try:
        uri = absolute_uri(text, Path.cwd())
    except ValueError as error:
        raise UsageError(f"find the run {shown(text)}", str(error), _WRITE) from None
    name = uri.rpartition("/")[2]
    if not NAME.fullmatch(name) or uri.count("/") < 3:
        raise UsageError(f"find the run {shown(text)}", f"{shown(name)} is not a run's name", _WRITE)
    return Run(name, open_store(uri))


def _of_yaml(path: Path) -> Run:
    """Where the YAML says, seen from the current folder. UsageError when the run lies beside the YAML instead."""
    spec = load(path)
    run = Run(spec.name, open_store(spec.uri))
    beside = load(path, folder=path.absolute().parent).uri
    if beside != spec.uri and not is_run(run.store) and is_run(open_store(beside)):
        found = f"no run was ever started at {run.uri}, but beside the YAML there is {beside}"
        do = f"name that one, or type the command in {path.absolute().parent}"
        raise UsageError(f"find the run of {path}", found, do)
    return run


def known_run(text: str, asked: str) -> Run:
    """Do as `find_run`, with a UsageError that has the nearest name when nothing was ever started there."""
    run = find_run(text)
    return Run(run.name, open_run(run.uri, asked))


def graph_of(run: Run, asked: str) -> Graph:
    """Read the graph of the last spec that was accepted there. Errors as `accepted_graph`."""
    return accepted_graph(run.store, asked)


def nodes_of(run: Run, name: str | None) -> tuple[str, ...]:
    """List the ids that NODE means: all when left out, a node with its siblings, or one. UsageError for none."""
    graph = graph_of(run, "find the nodes of")
    found = graph.named(name) if name else tuple(graph.nodes)
    if name and not found:
        names = {known for node in graph.nodes.values() for known in (node.id, node.name)}
        raise UsageError(f"find {name!r} in {run.uri}", unknown("node", name, names), "choose one of them")
    return found
