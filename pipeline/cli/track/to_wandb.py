"""Curves to Weights & Biases, online or offline as WANDB_MODE says.

What was sent is remembered in its own folder on this machine, for a run that is offline cannot be asked.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitpipe.pipeline.cli.track.follow import Open, Row, TrackedNode, library, newest

STEP = "step"
"""The metric that is every chart's x axis: wandb's own step counts calls, and may not go back."""


def opener(project: str, place: str | None) -> Open:
    """Open nodes in `project`; `place` is the folder for its files. UsageError without the library."""
    wandb = library("wandb", "wandb")
    folder = Path(place or os.environ.get("WANDB_DIR") or ".").absolute()
    return lambda node: _open(wandb, project, folder, node)


@dataclass
class _InWandb:
    run: Any
    kept: Path
    last: dict[str, int] = field(default_factory=dict)

    def send(self, rows: list[Row]) -> None:
        for row in rows:
            self.run.log({STEP: row.step, "seconds": row.clock, **row.values})
        newest(self.last, rows)
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.kept.with_suffix(".new")
        fresh.write_text(json.dumps(self.last))
        fresh.replace(self.kept)

    def close(self, state: str, results: Mapping[str, float]) -> None:
        self.run.summary.update({**results, "state": state})
        self.run.finish()


def _open(wandb: Any, project: str, folder: Path, node: TrackedNode) -> _InWandb:
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=project,
        dir=str(folder),
        id=node.id,
        name=f"{node.run}/{node.node}",
        group=node.run,
        job_type=node.stage,
        config={**node.params, **node.about},
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True
        ),
    )
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    kept = folder / "wandb" / "vitpipe" / f"{node.id}.json"
    return _InWandb(run, kept, json.loads(kept.read_text()) if kept.exists() else {})
