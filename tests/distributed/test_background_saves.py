"""Saves while training goes on: what is written is what was copied, a slow store is waited for, a failure borne."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from inprocess import CollectedEvents, HeldFence, InProcessCluster
from states import differing, numbers, write_state
from tiny_training import course, engine, steps

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.store import Digest
from vitpipe.infra.work import Rank
from vitpipe.pipeline.store.records import encode
from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.contract import Out
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.record import Record
from vitpipe.stages.training.checkpoint.checkpoints import Checkpoints
from vitpipe.stages.training.checkpoint.committed_steps import METRICS, STATE, Keep, StepPlace, committed
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure.step_metrics import StepMetrics


@dataclass(frozen=True)
class GatedStore(LocalStore):
    """A store whose uploads wait at a gate, and fail while it is broken."""

    gate: threading.Event = field(default_factory=threading.Event)
    broken: threading.Event = field(default_factory=threading.Event)

    def upload(self, local: Path, path: str, given: Digest | None = None) -> Digest:
        self.gate.wait()
        if self.broken.is_set():
            raise StorageError(f"upload {path}", "the store is away", "")
        return super().upload(local, path, given)


@dataclass(frozen=True)
class Scene:
    folder: Path
    store: GatedStore
    engine: Engine
    checkpoints: Checkpoints
    facts: Iterator[StepMetrics]

    @property
    def events(self) -> CollectedEvents:
        return CollectedEvents(self.folder / "events.jsonl")

    @property
    def steps(self) -> list[int]:
        return sorted(place.step for place in committed(self.store, ("a1",)))

    def save(self) -> int:
        facts = next(self.facts)
        self.checkpoints.save(facts.step, facts.samples_seen, {METRICS: b"line\n"})
        return facts.step


def on_a_rank(folder: Path, play: Callable[[Scene], None], rank: Rank) -> None:
    store = GatedStore(folder / "store")
    store.gate.set()
    made = engine(rank, zero=1)
    out = Out(store, "a1", HeldFence(folder), b"{}")
    events = CollectedEvents(folder / "events.jsonl")
    checkpoints = Checkpoints(made, out, folder / "scratch", events, rank, Keep(2, milestone_steps=3))
    play(Scene(folder, store, made, checkpoints, steps(made, course(settle_at=lambda step: True))))
    checkpoints.settle()


def play(folder: Path, what: Callable[[Scene], None]) -> None:
    InProcessCluster().gang(functools.partial(on_a_rank, folder, what), resources=PretrainResources())


def goes_on(scene: Scene) -> None:
    scene.store.gate.clear()
    scene.save()
    write_state(scene.engine, scene.folder / "then", 0)
    for _ in range(2):
        next(scene.facts)
    write_state(scene.engine, scene.folder / "now", 0)
    assert scene.checkpoints.news() == [] and scene.steps == []
    scene.store.gate.set()
    scene.checkpoints.settle()
    (saved,) = scene.checkpoints.news()
    assert saved.place == StepPlace(attempt="a1", step=1) and saved.stall_seconds <= saved.commit_seconds
    wrote = numbers(scene.folder / "store" / "a1" / "step-1" / STATE)
    assert differing(wrote, numbers(scene.folder / "then" / STATE)) == []
    assert differing(wrote, numbers(scene.folder / "now" / STATE))
    assert list((scene.folder / "scratch").rglob("*.safetensors")) == []


def waits(scene: Scene) -> None:
    scene.store.gate.clear()
    scene.save()
    opened: list[float] = []
    opener = threading.Timer(0.3, lambda: (opened.append(time.monotonic()), scene.store.gate.set()))
    opener.start()
    facts = next(scene.facts)
    called = time.monotonic()
    scene.checkpoints.save(facts.step, facts.samples_seen, {METRICS: b""})
    assert opened, "the second save began before the first had ended"
    scene.checkpoints.settle()
    _, second = scene.checkpoints.news()
    assert second.stall_seconds >= opened[0] - called and scene.steps == [1, 2]


def bears(scene: Scene) -> None:
    scene.save()
    scene.checkpoints.settle()
    scene.store.broken.set()
    scene.save()
    scene.store.gate.wait()
    failed = next(scene.facts)
    scene.checkpoints.close()
    scene.store.broken.clear()
    scene.checkpoints.save(failed.step, failed.samples_seen, {METRICS: b""})
    scene.checkpoints.settle()
    assert scene.steps == [1, 3]
    (told,) = scene.events.of("checkpoint_failed")
    assert told.startswith("step 2 was not saved, training goes on") and "the store is away" in told
    scene.store.broken.set()
    scene.save()
    with pytest.raises(StorageError, match="he store is away"):
        scene.checkpoints.settle()  # what was to be the last must be there
    assert list((scene.folder / "scratch").rglob("*.safetensors")) == []


def keeps(scene: Scene) -> None:
    for _ in range(6):
        scene.save()
    scene.checkpoints.settle()
    assert scene.steps == [3, 5, 6]  # the newest two, and the milestones


def spares(scene: Scene) -> None:
    """A step that went into a record stays, also when the record was replaced and its recipe is run once more."""
    scene.save()
    scene.checkpoints.settle()
    (made,) = scene.checkpoints.news()
    files = made.place.files(made.manifest)
    facts = Checkpoint(
        folder="step-1", step=1, samples_seen=1, model={"variant": "B/16", "image_px": 224}, shards_sha256=()
    ).facts()
    record = Record(
        node="n", stage="pretrain", fingerprint="f", recipe={}, config={}, inputs={}, output=facts, files=files,
        code="c", versions={}, started="now", seconds=1, attempt="a1",
    )  # fmt: skip
    scene.store.write("record.1.json", encode(record))
    for _ in range(4):
        scene.save()
    scene.checkpoints.settle()
    assert scene.steps == [1, 3, 4, 5]
    assert all(scene.store.size(file.at) == file.bytes for file in files)


@pytest.mark.parametrize("what", [goes_on, waits, bears, keeps, spares])
def test_saves(tmp_path: Path, what: Any) -> None:
    play(tmp_path, what)
