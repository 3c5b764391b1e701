"""A step that another number of ranks wrote at another ZeRO stage: each file is fetched once a machine, bits equal."""

import functools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from inprocess import CollectedEvents, HeldFence, InProcessCluster
from states import differing, numbers, write_state
from tiny_training import course, engine, steps

from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Out
from vitpipe.stages.training.checkpoint import one_copy
from vitpipe.stages.training.checkpoint.checkpoints import Checkpoints
from vitpipe.stages.training.checkpoint.committed_steps import METRICS, STATE, Keep

MACHINES = {"one": ("a", "a", "a"), "two": ("a", "a", "b"), "three": ("a", "b", "c")}
"""Whose disk each of three ranks has."""


@dataclass(frozen=True)
class Ranks:
    workers: int


def checkpoints(folder: Path, rank: Rank, zero: int, scratch: Path) -> Checkpoints:
    out = Out(open_store(f"file://{folder / 'store'}"), "a1", HeldFence(folder), b"{}")
    made = engine(rank, zero=zero, batch=12, ema_decay=0.9)
    return Checkpoints(made, out, scratch, CollectedEvents(folder / "events.jsonl"), rank, Keep(9))


def write(folder: Path, rank: Rank) -> None:
    saving = checkpoints(folder, rank, 1, folder / "written" / f"rank-{rank.rank}")
    *_, last = steps(saving._engine, course(total_steps=2))
    saving.save(2, last.samples_seen, {METRICS: b"a curve\n"})
    saving.settle()


def read(folder: Path, rank: Rank) -> None:
    for name, disks in MACHINES.items():
        scratch = folder / name / disks[rank.rank] / f"rank-{rank.rank}"
        reading, fetched = checkpoints(folder, rank, 3, scratch), list[str]()
        download = LocalStore.download

        def counted(self, path, local, expect=None, download=download, fetched=fetched):
            fetched.append(path)
            return download(self, path, local, expect)

        with mock.patch.object(LocalStore, "download", counted):
            resumed = reading.resume()
        assert resumed is not None and resumed.manifest.step == 2
        assert resumed.extra_files == ({METRICS: b"a curve\n"} if rank.rank == 0 else {})
        (folder / f"{name}-{rank.rank}.json").write_text(json.dumps(fetched))
        write_state(reading._engine, folder / name / "again", rank.rank)
        assert not list((folder / name).glob("*/load-*")), "what was fetched is gone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-copy")
    InProcessCluster(2).gang(functools.partial(write, folder), resources=Ranks(2))
    InProcessCluster(3).gang(functools.partial(read, folder), resources=Ranks(3))
    return folder


@pytest.mark.parametrize(("name", "disks"), MACHINES.items())
def test_each_file_is_fetched_once_a_machine(folder: Path, name: str, disks: tuple[str, ...]) -> None:
    fetched = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(3)]
    of_machine: dict[str, list[str]] = {}
    for disk, paths in zip(disks, fetched, strict=True):
        of_machine.setdefault(disk, []).extend(paths)
    for paths in of_machine.values():
        assert set(Counter(paths).values()) == {1}
    state = sorted((folder / "store/a1/step-2" / STATE).iterdir())
    if name == "one":
        sizes = {path: (folder / "store" / path).stat().st_size for paths in fetched for path in paths}
        assert sum(sizes.values()) == sum(file.stat().st_size for file in state) + len(b"a curve\n")
        assert all(paths for paths in fetched), "each rank fetches a part"
    assert differing(numbers(folder / name / "again" / STATE), numbers(state[0].parent)) == []


def test_what_is_wanted_is_dealt_by_size_and_the_same_way_on_all() -> None:
    wanted, sizes = [["a", "b"], ["b", "c", "d"], ["e"]], {"a": 1, "b": 5, "c": 2, "d": 2, "e": 9}
    parts = {rank: one_copy.SharedFolder(Path("/x"), (0, 1), rank).part(wanted, sizes) for rank in (0, 1)}
    assert parts == {0: ["b"], 1: ["c", "d", "a"]}
