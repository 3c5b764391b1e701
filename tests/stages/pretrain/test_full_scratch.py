"""A scratch disk that is full while a training runs: it goes on, no line of the curve is lost, the path is named."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from small_disk import SmallDisk, small_disk
from test_watching import lines, losses
from tiny_pretraining import context, pretrain, recipe

from vitpipe.infra.errors import IntegrityError, Stopped, StorageError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.contract import StageContext
from vitpipe.stages.pretrain import finish
from vitpipe.stages.training.checkpoint import checkpoints
from vitpipe.stages.training.measure import metrics_log
from vitpipe.stages.training.measure.metrics_log import MetricsLog

STEPS = 10


@dataclass
class At:
    """A fence, asked once a step, that has something happen at some of them; it may then want the end."""

    moments: dict[int, Callable[[], Any]]
    asked: int = field(default=0)
    reason: str | None = None

    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        self.asked += 1
        self.moments.get(self.asked, lambda: None)()
        return self.reason


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "scratch", "4m") as made:
        yield made


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return synthetic.shards(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (checkpoints, finish):
        monkeypatch.setattr(module, "AGAIN_S", 0.1)


def on(disk: SmallDisk, tmp_path: Path, fence: At, node: str = "rough", **resources: Any) -> StageContext:
    return replace(context(tmp_path, fence=fence, node=node, ledger=True, **resources), scratch=disk.path / node)


def told(ctx: StageContext, kind: str) -> list[str]:
    return ctx.events.of(kind)  # type: ignore[attr-defined, no-any-return]


def test_room_that_is_made_while_it_runs(tmp_path: Path, disk: SmallDisk, shards: ShardSet, quick: None) -> None:
    """Full from step 4 to 8, so that the save of step 6 fails, and again at the end, until the last save insists."""
    calm = context(tmp_path, node="calm", ledger=True)
    wanted = pretrain(recipe(), calm, shards)
    later = threading.Timer(1.0, disk.make_room)
    again = {STEPS: lambda: (disk.fill(), later.start())}
    ctx = on(disk, tmp_path, At({4: disk.fill, 8: disk.make_room} | again))
    made = pretrain(recipe(), ctx, shards)
    assert losses(ctx, made) == losses(calm, wanted)
    assert [line["step"] for line in lines(ctx, made, "metrics.jsonl")] == list(range(1, STEPS + 1))
    assert lines(ctx, made, "ledger.jsonl") == lines(calm, wanted, "ledger.jsonl")
    assert made.metrics["loss"] == wanted.metrics["loss"] and any("tfevents" in file.path for file in made.files)
    saved = [text.split(":")[0] for text in told(ctx, "checkpoint_committed")]
    assert saved == ["step 3", "step 9", "step 10"]
    first, last = told(ctx, "checkpoint_failed")  # the last save insists without a word each time
    assert first.startswith("step 6 was not saved") and last.startswith("step 10 was not saved")
    assert all(str(disk.path) in text and "No space left" in text for text in (first, last))


@pytest.mark.parametrize("stops", [False, True])
def test_a_disk_that_stays_full_is_named(
    stops: bool, tmp_path: Path, disk: SmallDisk, shards: ShardSet, quick: None
) -> None:
    fence = At({4: disk.fill})
    if stops:  # asked to end while it waits for room
        fence.moments[STEPS + 2] = lambda: setattr(fence, "reason", "SIGTERM")
    ctx = on(disk, tmp_path, fence, last_save_wait_s=600 if stops else 0)
    with pytest.raises(Stopped if stops else StorageError, match="No space left") as ended:
        pretrain(recipe(), ctx, shards)
    assert str(disk.path) in str(ended.value) and str(Path.cwd()) not in str(ended.value)
    assert not list(disk.path.rglob("*.safetensors")) and not list(disk.path.rglob("step-*"))
    disk.make_room()
    again = on(disk, tmp_path, At({}))
    made = pretrain(recipe(), replace(again, out=replace(again.out, attempt="a2", earlier=("a1",))), shards)
    assert [line["step"] for line in lines(again, made, "metrics.jsonl")] == list(range(1, STEPS + 1))


def test_lines_wait_for_room_in_order_and_not_without_end(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a line of which only the beginning had room."""
    log = MetricsLog(disk.path / "curve.jsonl")
    texts = [f'{{"step": {step}, "text": "{"x" * 5000}"}}\n' for step in range(1, 7)]
    log.add(texts[0])
    disk.fill()
    with (disk.path / "filler").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 4096)  # room for less than a line
    for text in texts[1:4]:
        log.add(text)
    early = log.now
    assert early.waiting and b"".join(early.lines()).decode() == "".join(texts[:4])
    assert [fields["step"] for fields in metrics_log.read(early)] == [1, 2, 3, 4]
    disk.make_room()
    log.add(texts[4])
    assert not log.now.waiting and log.path.read_text() == "".join(texts[:5])
    assert b"".join(early.lines()).decode() == "".join(texts[:4]), "what was taken before stays what it was"
    disk.fill()
    monkeypatch.setattr(metrics_log, "WAITING_BYTES", 4000)
    with pytest.raises(StorageError, match=str(log.path)):
        for _ in range(9):
            log.add(texts[5])


def test_a_curve_that_somebody_cut_is_no_curve(tmp_path: Path) -> None:
    """Negative control: what was written has to be there when it is read back."""
    log = MetricsLog(tmp_path / "curve.jsonl")
    log.add('{"step": 1}\n')
    log.path.write_bytes(b"")
    for read in (lambda: list(log.now.lines()), lambda: log.now.copy(io.BytesIO())):
        with pytest.raises(IntegrityError, match="12 of its 12 bytes are gone"):
            read()
