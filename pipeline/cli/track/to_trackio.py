"""Curves to Trackio's database on this machine, where TRACKIO_DIR says. What is there is asked of that database."""

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from vitpipe.pipeline.cli.track.follow import Open, Row, TrackedNode, library, newest


def opener(project: str, place: str | None) -> Open:
    """Open nodes in `project`; `place` is the folder of the database. UsageError without the library."""
    if place:
        os.environ["TRACKIO_DIR"] = place  # read when it is imported
    trackio = library("trackio", "trackio")
    return lambda node: _open(trackio, project, node)


@dataclass
class _InTrackio:
    trackio: Any
    run: Any
    last: dict[str, int] = field(default_factory=dict)

    def send(self, rows: list[Row]) -> None:
        for row in rows:
            self.run.log(dict(row.values), step=row.step)
        newest(self.last, rows)

    def close(self, state: str, results: Mapping[str, float]) -> None:
        new = {name: value for name, value in results.items() if name not in self.last}
        if new:
            self.run.log(new, step=max(self.last.values(), default=0))
        with redirect_stdout(io.StringIO()):
            if self.trackio.context_vars.current_run.get() is self.run:
                self.trackio.finish()  # or it would finish it once more at the end of this process, and print that
            else:
                self.run.finish()


def _open(trackio: Any, project: str, node: TrackedNode) -> _InTrackio:
    name = f"{node.run}/{node.node}-{node.id[:6]}"
    storage = library("trackio", "trackio.sqlite_storage").SQLiteStorage
    with redirect_stdout(io.StringIO()):  # it prints how to open its own page, into what may be JSON
        run = trackio.init(
            project=project,
            name=name,
            group=node.run,
            config={**node.params, **node.about},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    last: dict[str, int] = {}
    for row in storage.get_logs(project, name):
        last.update({tag: max(int(row["step"]), last.get(tag, -1)) for tag in row if tag not in ("step", "timestamp")})
    return _InTrackio(trackio, run, last)
