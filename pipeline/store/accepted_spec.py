"""The last spec that was accepted in a run's folder: `spec.yaml`, resolved. Every verb but `run` takes its graph."""

from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import PipelineSpec, SpecError, load

SPEC = "spec.yaml"


def accepted_graph(run: Store, asked: str) -> Graph:
    """Read the graph of that spec. UsageError when no run was ever accepted there; IntegrityError when damaged."""
    return accepted_spec(run, asked).graph


def accepted_spec(run: Store, asked: str) -> PipelineSpec:
    """Read that spec. Errors as `accepted_graph`."""
    try:
        return load(run.read(SPEC).decode(), env={})
    except NotFound:
        do = "check the store and the name"
        raise UsageError(f"{asked} {run.uri}", "no run was ever started there", do) from None
    except (ValueError, RecursionError, SpecError) as error:
        found = f"it is damaged, or of another vitpipe: {error.found if isinstance(error, SpecError) else error}"
        do = "run your YAML again (`vitpipe run YOUR.yaml`), which writes it anew, or restore it from a copy; "
        do += "nothing else goes by it, what is committed stays so"
        raise IntegrityError(f"read {run.uri}/{SPEC}", found, do) from error


def is_kept(run: Store, text: str) -> bool:
    """Whether the run has a spec: this text, or another that can be read."""
    try:
        return run.read(SPEC) == text.encode() or bool(accepted_graph(run, "read the spec of").nodes)
    except (NotFound, UsageError, IntegrityError):
        return False
