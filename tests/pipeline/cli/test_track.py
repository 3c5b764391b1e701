"""`track`: each point once, whoever is asked how often; each real tracker against its own files on this machine."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe
from tiny_stages import HOOKS

from vitpipe.infra.curves import Gathered, LiveCurves, parse
from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli.track.follow import Row, TrackedNode, Tracking, newest
from vitpipe.pipeline.store.followed import FollowedRun
from vitpipe.pipeline.store.runs import Run

SPEC = """\
version: 1
name: tiny
store: file://./runs
nodes:
  a: {stage: make, config: {value: 7}}
  sum: {stage: add, needs: {shards: [a]}}
"""


def leaves(*losses: float) -> Any:
    def hook(ctx: Any) -> None:
        live = LiveCurves(ctx.out.node, ctx.out.attempt)
        for step, loss in enumerate(losses, 1):
            live.add(step, {"train/loss": loss}, float(step), told=False)
            live.add(step, {"train/loss": -loss}, of="sweep-lr1e-05-seed0", told=False)
        live.tell()
        live.settle(20)

    return hook


@pytest.fixture
def run(vitpipe: Vitpipe, tmp_path: Path) -> Run:
    Path("tiny.yaml").write_text(SPEC)
    HOOKS["a"] = leaves(3.0, 2.0)
    vitpipe("run", "tiny.yaml")
    return Run("tiny", open_store(f"file://{tmp_path}/runs/tiny"))


@dataclass
class Kept:
    """What a tracker keeps of one node, beyond any process."""

    node: TrackedNode
    sent: list[tuple[int, str, float]] = field(default_factory=list)
    closed: list[tuple[str, Mapping[str, float]]] = field(default_factory=list)


class Fake:
    def __init__(self) -> None:
        self.nodes: dict[str, Kept] = {}
        self.broken = False

    def open(self, node: TrackedNode) -> "FakeSent":
        return FakeSent(self, self.nodes.setdefault(node.id, Kept(node)))


class FakeSent:
    def __init__(self, fake: Fake, kept: Kept) -> None:
        self.fake, self.kept = fake, kept
        self.last: dict[str, int] = {}
        for step, tag, _ in kept.sent:
            self.last[tag] = max(step, self.last.get(tag, -1))

    def send(self, rows: list[Row]) -> None:
        if self.fake.broken:
            raise ConnectionError("no route")
        self.kept.sent += [(row.step, tag, value) for row in rows for tag, value in row.values.items()]
        newest(self.last, rows)

    def close(self, state: str, results: Mapping[str, float]) -> None:
        self.kept.closed.append((state, dict(results)))


def test_each_point_is_sent_once_by_however_many_calls(run: Run) -> None:
    fake = Fake()
    for _ in range(2):
        tracking = Tracking(fake.open)
        for _ in range(2):
            tracking.show(FollowedRun(run).look())
        tracking.close()
    node, score = (next(one for one in fake.nodes.values() if one.node.node == name) for name in ("a", "sum"))
    assert Counter(node.sent) == Counter(
        (step, tag, sign * loss)
        for tag, sign in (("train/loss", 1), ("sweep-lr1e-05-seed0/train/loss", -1))
        for step, loss in ((1, 3.0), (2, 2.0))
    )
    assert node.node.params["value"] == 7 and node.node.about["vitpipe_run"] == run.uri
    assert score.closed[0] == ("committed", {"score/sum": 14.0}) and len(node.closed) == 2


def test_what_a_curve_gains_is_sent_and_what_is_made_again_is_not(run: Run) -> None:
    fake, followed = Fake(), FollowedRun(run)
    tracking, look = Tracking(fake.open), followed.look()
    for attempt, losses in (("a1", (3.0, 2.0)), ("a2", (3.0, 2.5, 1.0))):
        gathered = Gathered()
        for step, loss in enumerate(losses, 1):
            gathered.add(step, {"train/loss": loss})
        assert look.status
        running = tuple(replace(node, state="running", score=None) for node in look.status.nodes)
        curves = {"a": replace(look.curves["a"], attempt=attempt, lines=parse(gathered.encode(attempt)).lines)}
        tracking.show(replace(look, status=replace(look.status, nodes=running), curves=curves))
    (node,) = fake.nodes.values()
    assert node.sent == [(1, "train/loss", 3.0), (2, "train/loss", 2.0), (3, "train/loss", 1.0)]


def test_whatever_a_tracker_raises_is_a_trouble_of_the_tracker(run: Run) -> None:
    fake = Fake()
    fake.broken = True
    with pytest.raises(StorageError, match="ConnectionError: no route"):
        Tracking(fake.open).show(FollowedRun(run).look())


def needs(library: str) -> Any:
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"{library} is not installed: pip install 'vitpipe[{library}]'")


def track(*args: str) -> dict[str, Any]:
    """Type it in a process of its own: trackers leave threads and hooks behind, and warn of much."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import tiny_stages; from vitpipe.pipeline.spec.catalog "
    code += "import CATALOG; CATALOG.update(tiny_stages.STAGES); from vitpipe.pipeline.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        str(Path(__file__).parents[2]),
        "track",
        "runs/tiny",
        "--once",
        "--json",
        *args,
    ]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    said: dict[str, Any] = json.loads(done.stdout)  # and nothing else is printed there
    return said


def gains(run: Run) -> None:
    live = LiveCurves(run.store.child("a"), "a1")
    for step, loss in enumerate((3.0, 2.0, 1.0), 1):
        live.add(step, {"train/loss": loss}, float(step), told=False)
    live.add(2, {"fewshot/digits/5": 0.5}, 2.0)
    live.settle(20)


def thrice(run: Run, to: str, at: str) -> list[int]:
    found = [track("--to", to, "--at", at)["sent"] for _ in range(2)]
    gains(run)
    return [*found, track("--to", to, "--at", at)["sent"]]


@needs("mlflow")
def test_mlflow_in_a_database_file(run: Run, tmp_path: Path) -> None:
    assert thrice(run, "mlflow", f"sqlite:///{tmp_path}/m.db") == [4, 0, 2]
    with sqlite3.connect(tmp_path / "m.db") as db:
        rows = db.execute("select key, step, value from metrics where key not like 'score%' order by key, step")
        assert rows.fetchall() == [
            ("fewshot/digits/5", 2, 0.5), ("sweep-lr1e-05-seed0/train/loss", 1, -3.0),
            ("sweep-lr1e-05-seed0/train/loss", 2, -2.0), ("train/loss", 1, 3.0), ("train/loss", 2, 2.0),
            ("train/loss", 3, 1.0),
        ]  # fmt: skip
        assert db.execute("select value from metrics where key = 'score/sum'").fetchall() == [(14.0,)]
        assert ("value", "7") in db.execute("select key, value from params").fetchall()
        assert db.execute("select distinct status from runs").fetchall() == [("FINISHED",)]


@needs("trackio")
def test_trackio_in_its_folder(run: Run, tmp_path: Path) -> None:
    assert thrice(run, "trackio", str(tmp_path / "t")) == [4, 0, 2]
    with sqlite3.connect(tmp_path / "t" / "vitpipe.db") as db:
        rows = db.execute("select step, metrics from metrics where run_name like 'tiny/a-%' order by step").fetchall()
    found = Counter((step, tag, value) for step, text in rows for tag, value in json.loads(text).items())
    assert found[3, "train/loss", 1.0] == found[2, "fewshot/digits/5", 0.5] == 1 and set(found.values()) == {1}
    assert found.total() == 6


@needs("wandb")
def test_wandb_offline(run: Run, tmp_path: Path) -> None:
    assert thrice(run, "wandb", str(tmp_path / "w")) == [4, 0, 2]
    found = Counter(sent_to_wandb(tmp_path / "w"))
    assert found == Counter(
        [
            (1, "train/loss", 3.0), (2, "train/loss", 2.0), (3, "train/loss", 1.0), (2, "fewshot/digits/5", 0.5),
            (1, "sweep-lr1e-05-seed0/train/loss", -3.0), (2, "sweep-lr1e-05-seed0/train/loss", -2.0),
        ]
    )  # fmt: skip


READS = """
import json, pathlib, struct, sys
from wandb.proto.wandb_internal_pb2 import Record
for path in pathlib.Path(sys.argv[1]).rglob("*.wandb"):
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                print(json.dumps({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}))
"""
"""What wandb would upload: a log as LevelDB writes it, of wandb's own messages."""


def sent_to_wandb(folder: Path) -> list[tuple[int, str, float]]:
    done = subprocess.run([sys.executable, "-c", READS, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = {name for row in rows for name in row if name not in ("step", "seconds") and not name.startswith("_")}
    return [(row["step"], name, row[name]) for row in rows for name in row if name in names]
