"""The report of a run as a file on this machine."""

from pathlib import Path

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.pipeline.store.runs import Run, graph_of
from vitpipe.stages.record import load_artifact

PAGE = "index.html"


def fetch_reports(run: Run, folder: Path | None = None) -> list[Path]:
    """Copy every committed report's page to `{folder}/{run}-{node}/index.html`, verified; where they are.

    UsageError when the run has no report, or none is committed yet.
    """
    asked = f"show the report of {run.uri}"
    nodes = [node.id for node in graph_of(run, "show the report of").nodes.values() if node.stage.output == "Report"]
    if not nodes:
        raise UsageError(asked, "it has no node of stage report", "add one to the YAML")
    found = []
    for node in nodes:
        try:
            artifact = load_artifact(f"{run.uri}/{node}")
        except NotFound:
            continue
        target = (folder or Path.cwd()) / f"{run.name}-{node.replace('/', '-')}"
        found.append(artifact.fetch(PAGE, target))
    if not found:
        raise UsageError(asked, f"{', '.join(nodes)} is not committed yet", "see vitpipe status")
    return found
