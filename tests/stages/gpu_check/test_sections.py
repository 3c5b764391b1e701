"""Each section of the GPU check at its shrunk size in this process, and what each must notice, planted.

The numbers of a CPU mean nothing here: that there are any, and that what differs is told, does.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vitpipe.infra.errors import StageError
from vitpipe.stages.gpu_check import feeding, graphs, launches, losses, resume, speed, stall
from vitpipe.stages.gpu_check.drawn import PhotoSize, drawn_shards
from vitpipe.stages.gpu_check.findings import Findings, Told, Way
from vitpipe.stages.gpu_check.golden import Golden, compare_bits, compare_near
from vitpipe.stages.gpu_check.peers import peer
from vitpipe.stages.gpu_check.ranks import one_rank
from vitpipe.stages.gpu_check.training import SHRUNK, Setting, build
from vitpipe.stages.vit.build import blocks_of

SET = {
    "DS_ACCELERATOR": "cpu", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
    "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}  # fmt: skip
"""What a rank sets in its process, which here is that of the tests."""


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    for name in SET:
        monkeypatch.setenv(name, SET[name])  # put back afterwards
    return Way("cpu", True, tmp_path / "scratch", 300)


def told(way: Way, section: Callable[[Findings], object], proves: bool = True) -> Told:
    """What a section tells."""
    rows = way.scratch / "rows.jsonl"
    section(Findings(rows, way.seconds))
    found = Told("section", "Section", proves, state="done")
    for line in rows.read_text().splitlines():
        found.take(line)
    return found


def test_losses_that_differ_are_told(way: Way) -> None:
    """Negative control: the same curve holds, a thousandth off or without an end it does not."""
    curve = [(1.6, 2.0), (1.5, 1.5)]
    other = [(1.6, 2.0), (1.5 * 1.001, 1.5)]
    lost = [(1.6, 2.0), (float("nan"), 1.5)]
    for name, found in (("same", curve), ("planted", other), ("lost", lost)):
        one = told(replace(way, scratch=way.scratch / name), lambda say: losses.compare(say, "x", found, curve, "fp32"))  # noqa: B023
        assert one.wrong == (name != "same")


def test_killed_resumed_and_moved(way: Way) -> None:
    found = told(way, lambda say: resume.run(way, say))
    assert not found.wrong and found.rows[0]["losses equal"] == "6 of 6" and len(found.rows) == 2


def test_a_resume_that_differs_is_told(way: Way) -> None:
    """Negative control: one loss of another last bit, one file of the state, a step that is missing."""
    whole = Golden([x.hex() for x in (1.5, 1.25)], {"state/weights": "0a"})
    bit = replace(whole, losses=[(1.5).hex(), (1.25 + 2**-52).hex()])
    for name, found in (("bit", bit), ("file", replace(whole, digests={"state/weights": "0b"})),
                        ("step", replace(whole, losses=whole.losses[:1]))):  # fmt: skip
        one = told(replace(way, scratch=way.scratch / name), lambda say: compare_bits(say, "x", found, whole))  # noqa: B023
        assert one.wrong, name
    assert not told(replace(way, scratch=way.scratch / "s"), lambda say: compare_bits(say, "x", whole, whole)).wrong
    near = replace(whole, losses=[(1.5 + 1e-6).hex(), (1.25).hex()])
    far = replace(whole, losses=[(1.5 + 1e-3).hex(), (1.25).hex()])
    assert not told(replace(way, scratch=way.scratch / "n"), lambda say: compare_near(say, "x", near, whole)).wrong
    assert told(replace(way, scratch=way.scratch / "f"), lambda say: compare_near(say, "x", far, whole)).wrong


def test_a_rank_that_was_not_killed_is_told(way: Way, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Negative control: the disturbance itself is checked."""
    trainings = resume.Trainings(way, drawn_shards(way.scratch, 8, PhotoSize(48, 40, 1.46)))
    monkeypatch.setattr(resume.Trainings, "_golden", lambda *args, **more: Golden([], {}))
    with pytest.raises(RuntimeError, match="came to its end"):
        trainings.killed(resume.TrainingWay("fp32"))

    def breaks(*args: Any, **more: Any) -> Golden:
        raise StageError("run ranks", "a bug of another kind")

    monkeypatch.setattr(resume.Trainings, "_golden", breaks)
    with pytest.raises(StageError, match="another kind"):
        trainings.killed(resume.TrainingWay("fp32"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at views
@pytest.mark.parametrize("planted", ["none", "break", "recompiles"])
def test_breaks_and_recompiles_are_told(way: Way, planted: str) -> None:
    """Negative control: a block that breaks its graph, and blocks of which each wants a graph of its own."""
    setting = Setting(graphs.DEEP if planted == "recompiles" else SHRUNK, 4, "fp32", compiled=True)

    def make(setting: Setting, rank: Any, way: Way) -> Any:
        trained = build(setting, rank, way.scratch)
        for number, block in enumerate(blocks_of(trained.engine.model)):
            block.word = str(number)  # type: ignore[assignment]
            block.forward = _planted(type(block).forward, block, planted)  # type: ignore[method-assign]
            block.compile(backend="eager")
        return trained

    timms = torch._dynamo.config.patch(recompile_limit=1_000_000)  # as its optimisers leave it, once imported
    with timms, one_rank("cpu") as rank:
        found = told(way, lambda say: graphs.count(say, planted, setting, rank, way, make))
    assert found.wrong == (planted != "none"), found.rows
    (row,) = found.rows
    assert bool(row["breaks"]) == (planted == "break") and row["gave up"] == (planted == "recompiles")


def _planted(forward: Any, block: Any, planted: str) -> Any:
    def changed(x: torch.Tensor) -> torch.Tensor:
        if planted == "break":
            torch._dynamo.graph_break()
        y: torch.Tensor = forward(block, x)
        return y * 2 if planted == "recompiles" and block.word == "0" else y

    return changed


def test_out_of_memory_and_errors_are_rows(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is measured; a peer out of memory, and one that breaks, are rows, and the cases after them are measured."""

    def broken(name: str, setting: Setting, rank: Any) -> Any:
        if name == "torch":
            raise torch.OutOfMemoryError("planted")
        if name == "timm":
            raise RuntimeError("a planted error")
        return peer(name, setting, rank)

    monkeypatch.setattr(speed, "peer", broken)
    found = told(way, lambda say: speed.run(way, say), proves=False)
    ours, bare, timm, deepspeed, larger = found.rows
    assert isinstance(ours["images/s"], float) and isinstance(deepspeed["images/s"], float)
    assert (bare["images/s"], timm["images/s"]) == ("out of memory", "RuntimeError: a planted error")
    assert larger["images"] == 8 and isinstance(larger["images/s"], float)
    assert found.facts["peak is"] == "peak_flops is a matrix product measured here"


def test_reads_are_counted(way: Way) -> None:
    """Negative control: a number that is read in each step is one read more a step."""
    with one_rank("cpu") as rank:
        made = peer("torch", Setting(SHRUNK, 4, "fp32"), rank)
        plain, step = launches.count(way, made), made._step

        def reads(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            loss = step(images, labels)
            loss.item()
            return loss

        made._step = reads
        planted = launches.count(way, made)
    steps = launches.STEPS[True]
    assert planted.reads == plain.reads + steps and planted.operations > 0
    assert abs(planted.operations - plain.operations) <= 2 * steps


def test_launches_beside_bare_torch(way: Way) -> None:
    found = told(way, lambda say: launches.run(way, say), proves=False)
    bare, ours = found.rows
    assert bare["of bare torch"] == 1.0 and float(ours["of bare torch"] or 0) > 0.5


def test_waiting_for_a_slow_reader_is_told(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where the reader sleeps, the share that waits is large."""
    import time

    shards = drawn_shards(way.scratch, 8, PhotoSize(48, 40, 1.46))
    opened = feeding.images_of

    def slow(*args: Any) -> Any:
        images = opened(*args)
        stream = images.stream

        def sleeping(*told: Any) -> Iterator[Any]:
            for batch in stream(*told):
                time.sleep(0.5)
                yield batch

        images.stream = sleeping  # type: ignore[method-assign]
        return images

    monkeypatch.setattr(feeding, "images_of", slow)
    found = told(way, lambda say: feeding.waiting(way, say, Setting(SHRUNK, 4, "fp32"), shards), proves=False)
    (row,) = found.rows
    assert float(row["share that waits"] or 0) > 0.1


def test_reading_and_saving(way: Way) -> None:
    found = told(way, lambda say: feeding.run(way, say), proves=False)
    assert [row.get("threads") for row in found.rows] == [1, None]
    saved = told(replace(way, scratch=way.scratch / "s"), lambda say: stall.run(way, say), proves=False)
    (row,) = saved.rows
    assert float(row["GB"] or 0) > 0 and float(row["committed after s"] or 0) > 0
