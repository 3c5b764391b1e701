"""The RUN of the command line, `STORE/NAME` or the path of a YAML: where that run lies, and its nodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import PipelineSpec, load
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
    also: str = ""
    """Where else it was looked for in vain: beside the YAML that names it."""

    @property
    def uri(self) -> str:
        """Where the run lies: `{store}/{name}`."""
        return self.store.uri


def ignore(text: str) -> None:
    """Say nothing."""


def find_run(text: str, tell: Callable[[str], None] = ignore) -> Run:
    """Find what RUN names; a local folder may also be a plain path. Errors: UsageError; SpecError of a YAML.

    `tell` hears where the run lies when that is not where the YAML says, seen from the current folder.
    """
    if "://" not in text:
        if text.endswith((".yaml", ".yml")) or Path(text).is_file():
            return _of_yaml(Path(text), tell)
        text = f"file://{Path(text).absolute()}"
    try:
        uri = absolute_uri(text, Path.cwd())
    except ValueError as error:
        raise UsageError(f"find the run {shown(text)}", str(error), _WRITE) from None
    name = uri.rpartition("/")[2]
    if not NAME.fullmatch(name) or uri.count("/") < 3:
        raise UsageError(f"find the run {shown(text)}", f"{shown(name)} is not a run's name", _WRITE)
    return Run(name, open_store(uri))


def _of_yaml(path: Path, tell: Callable[[str], None]) -> Run:
    """Where the YAML says, seen from the current folder; beside the YAML where only that is a run."""
    spec = load(path)
    here = Run(spec.name, open_store(spec.uri))
    beside = run_beside(path, spec)
    if not beside:
        return here
    if is_run(beside):
        tell(f"{here.uri} is no run; this is {beside.uri}, beside {path}")
        return Run(spec.name, beside)
    return Run(spec.name, here.store, beside.uri)


def run_beside(path: Path, spec: PipelineSpec, overrides: Sequence[str] = ()) -> Store | None:
    """Return what the YAML means seen from its own folder, where that is another place and no run lies at `spec`'s."""
    folder = path.absolute().parent
    beside = spec.uri if folder == Path.cwd() else load(path, overrides, folder=folder).uri
    return open_store(beside) if beside != spec.uri and not is_run(open_store(spec.uri)) else None


def known_run(text: str, asked: str, tell: Callable[[str], None] = ignore, begun: bool = True) -> Run:
    """Do as `find_run`, with a UsageError that has the nearest name when nothing was ever started there.

    One that was only submitted is refused too, unless it need not have `begun`.
    """
    run = find_run(text, tell)
    return Run(run.name, open_run(run.uri, asked, run.also, begun))


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
