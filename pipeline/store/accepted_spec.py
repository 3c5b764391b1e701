"""The last spec that was accepted in a run's folder: `spec.yaml`, resolved, as every verb but `run` takes the graph."""

from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import SpecError, load

SPEC = "spec.yaml"


def accepted_graph(run: Store, asked: str) -> Graph:
    """The graph of that spec. UsageError when no run was ever accepted there; IntegrityError when it is damaged."""
    try:
        return load(run.read(SPEC).decode(), env={}).graph
    except NotFound:
        raise UsageError(
            f"{asked} {run.uri}", "no run was ever started there", "check the store and the name"
        ) from None
    except (ValueError, RecursionError, SpecError) as error:
        why = error.found if isinstance(error, SpecError) else str(error)
        raise IntegrityError(
            f"read {run.uri}/{SPEC}",
            f"it is damaged, or of another vitpipe: {why}",
            "run your YAML again (`vitpipe run YOUR.yaml`), which writes it anew, or restore it from a copy; "
            "nothing else goes by it, what is committed stays so",
        ) from error


def is_kept(run: Store, text: str) -> bool:
    """Whether such a spec lies there, this text or another that can be read."""
    try:
        return run.read(SPEC) == text.encode() or bool(accepted_graph(run, "read the spec of").nodes)
    except (NotFound, UsageError, IntegrityError):
        return False
