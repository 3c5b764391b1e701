"""What the page tells of trouble on the way."""

import json
from pathlib import Path

from vitpipe.infra.events import StoreEvents
from vitpipe.infra.storage.local import LocalStore
from vitpipe.stages.report.caveats import survived


def test_trouble_is_told_though_an_event_is_damaged(tmp_path: Path) -> None:
    run = LocalStore(tmp_path)
    for kind in ("started", "rank_lost", "resumed"):
        StoreEvents(run, 1, "net").emit(kind, "it is so")
        run.write("events/1-1-x.json", json.dumps({"time": 0}).encode()[:-3])
    assert [event.kind for event in survived(run.uri)] == ["rank_lost", "resumed"]
