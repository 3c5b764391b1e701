"""`doctor --cluster` names the node that is not like the others, by real questions to nodes of which one is planted.

The nodes are threads of this process, so that no Ray has to start; what a node does is what it does in its actor.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import typed

from vitpipe.infra.errors import AlreadyExists, StorageError
from vitpipe.infra.ray import cluster_survey, node_facts, node_probe
from vitpipe.infra.ray.cluster_survey import Survey, rounds, survey
from vitpipe.infra.ray.node_facts import GpuState, NodeFacts
from vitpipe.infra.ray.node_probe import NodeProbe
from vitpipe.pipeline.cli.cluster_checks import cluster_checks
from vitpipe.pipeline.cli.doctor import Check, failure

H100 = GpuState("NVIDIA H100 80GB HBM3", "560.35", "81559 MiB", 0)
FACTS = NodeFacts("x", {"python": "3.11.2", "torch": "2.15.0"}, "c0de", "/tmp", 900 << 30, "", 96, (H100,) * 8, "")


class Node(NodeProbe):
    """A node whose machine is made up, but whose store is real."""

    made: NodeFacts = FACTS
    speed = 40e9

    def facts(self) -> NodeFacts:
        return self.made

    def listen(self, address: str) -> int:
        return 1

    def all_reduce(self, *_: Any) -> float:
        return self.speed


class Threads:
    """Satisfies `infra.ray.cluster_survey.Nodes`."""

    def __init__(self, planted: type[Node] | None, count: int = 3) -> None:
        self.nodes = {f"node{number}": Node() for number in range(1, count + 1)}
        if planted:
            self.nodes["node2"] = planted()
        self.asked: list[tuple[str, str]] = []

    def names(self) -> Sequence[str]:
        return list(self.nodes)

    def address(self, node: str) -> str:
        return "127.0.0.1"

    def ask(self, question: str, arguments: Mapping[str, tuple[Any, ...]], seconds: float) -> dict[str, Any]:
        answers: dict[str, Any] = {}

        def answer(name: str, given: tuple[Any, ...]) -> None:
            try:
                answers[name] = getattr(self.nodes[name], question)(*given)
            except Exception as error:
                answers[name] = error

        threads = [threading.Thread(target=answer, args=one, daemon=True) for one in arguments.items()]
        self.asked += [(question, name) for name in arguments]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return dict(answers)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_probe, "SEEN_S", 0.3)
    monkeypatch.setattr(cluster_survey, "ANSWER_S", 0.5)
    monkeypatch.setattr(cluster_survey, "PAIR_S", 1.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


def look(folder: Path, planted: type[Node] | None = None, count: int = 3) -> tuple[Survey, dict[str, Check]]:
    found = survey(Threads(planted, count), f"file://{folder}/store")
    return found, {check.name: check for check in cluster_checks(found, expected=count)}


def test_a_healthy_cluster_is_ok_and_left_clean(tmp_path: Path) -> None:
    found, checks = look(tmp_path)
    assert [check for check in checks.values() if not check.ok] == []
    assert [*checks] == ["nodes", "versions", "code", "clocks", "disks", "store", "between nodes", "GPUs", "network"]
    assert len(found.pairs) == 6 and found.winners == 1 and all(pair.locked_out for pair in found.pairs)
    assert "3 nodes with 8 x NVIDIA H100" in checks["GPUs"].found and "40.00 GB/s" in checks["network"].found
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and ".vitpipe" not in str(path)]


class Hangs(Node):
    def store(self, uri: str) -> list[str]:
        time.sleep(5)
        return []


class OtherTorch(Node):
    made = replace(FACTS, versions={**FACTS.versions, "torch": "2.14.0"})


class OtherCode(Node):
    made = replace(FACTS, source="0ther")


class Ahead(Node):
    def clock(self) -> float:
        return time.time() + 60


class Full(Node):
    made = replace(FACTS, free_bytes=1 << 30)


class NoLocksOnScratch(Node):
    made = replace(FACTS, scratch_trouble="its file system gives no locks")


class Refused(Node):
    def store(self, uri: str) -> list[str]:
        return ["Cannot write probe: 403 AccessDenied."]


class Lags(Node):
    """Reads what it read before, as a cached attribute makes it."""

    def sees(self, uri: str, path: str, text: str) -> float | None:
        return 7.5 if text.startswith("two") else super().sees(uri, path, text)


class Blind(Node):
    def sees(self, uri: str, path: str, text: str) -> float | None:
        return super().sees(f"{uri}-of-its-own", path, text)


class Overwrites(Node):
    def create(self, uri: str, path: str, text: str) -> bool:
        self.write(uri, path, text)
        return True


class OwnLocks(Node):
    def kept_out(self, uri: str, path: str) -> bool:
        return super().kept_out(uri, f"{path}-here")


class SevenGpus(Node):
    made = replace(FACTS, gpus=(H100,) * 7)


class OtherDriver(Node):
    made = replace(FACTS, gpus=(replace(H100, driver="550.54"),) * 8)


class BadMemory(Node):
    made = replace(FACTS, gpus=(*(H100,) * 3, replace(H100, ecc_errors=2), *(H100,) * 4))


class NoDriver(Node):
    made = replace(FACTS, gpus=(), gpu_trouble="nvidia-smi: driver/library version mismatch")


class Slow(Node):
    speed = 5e9

    def all_reduce(self, *_: Any) -> float:
        return self.speed


class CannotReduce(Node):
    def all_reduce(self, *_: Any) -> float:
        raise RuntimeError("NCCL error: unhandled system error")


PLANTED = {
    Hangs: ("nodes", "node2: no answer to `store`"), OtherTorch: ("versions", "node2 has torch 2.14.0, others 2.15.0"),
    OtherCode: ("code", "node2 has 0ther"), Ahead: ("clocks", "node2 is +60.0 s apart"),
    Full: ("disks", "node2: 1.0 GiB free"), NoLocksOnScratch: ("disks", "node2: /tmp: its file system gives no locks"),
    Refused: ("store", "node2: Cannot write probe: 403"),
    Lags: ("between nodes", "node2 sees what node1 changes only after 7.5 s"),
    Blind: ("between nodes", "node2 sees what node3 creates not within"),
    Overwrites: ("between nodes", "node2 can create the name that node1 has created"),
    SevenGpus: ("GPUs", "node2 has 7 x NVIDIA H100"), OtherDriver: ("GPUs", "driver 550.54"),
    BadMemory: ("GPUs", "node2: memory errors that were not corrected on GPU 3"),
    NoDriver: ("GPUs", "node2: nvidia-smi: driver/library"), CannotReduce: ("nodes", "node2: all_reduce: NCCL error"),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.__name__)
def test_the_odd_node_is_named(tmp_path: Path, planted: type[Node]) -> None:
    name, said = PLANTED[planted]
    _, checks = look(tmp_path, planted)
    assert not checks[name].ok and said in checks[name].found and checks[name].do
    others = {*checks} - {name} - ({"network"} if planted is CannotReduce else set())
    assert [checks[other].found for other in others if not checks[other].ok] == []
    error = failure(list(checks.values()))
    assert error and error.code == 7 and name in str(error)
    assert "node1" not in checks[name].found.replace("what node1", "").replace("that node1", "")


def test_a_slow_node_is_told_from_its_partners(tmp_path: Path) -> None:
    found, checks = look(tmp_path, Slow, count=5)
    assert {name for pair in found.networks for name in pair} == {f"node{number}" for number in range(1, 6)}
    # a pair is as slow as its slower end: the partners have other pairs
    assert not checks["network"].ok and checks["network"].found.startswith("node2 reaches 5.00 GB/s")
    assert "node3" not in checks["network"].found


def test_locks_of_one_machine_alone_are_a_warning(tmp_path: Path) -> None:
    _, checks = look(tmp_path, OwnLocks)
    assert checks["between nodes"].ok and "locks do not hold between node1 and node2" in checks["between nodes"].found


def test_of_two_nodes_both_are_named(tmp_path: Path) -> None:
    _, checks = look(tmp_path, OtherTorch, count=2)
    assert not checks["versions"].ok and "node1" in checks["versions"].found and "node2" in checks["versions"].found
    _, checks = look(tmp_path, Ahead, count=2)
    assert not checks["clocks"].ok and "60.0" in checks["clocks"].found


def test_a_node_that_hangs_is_asked_no_more_and_nobody_waits_for_it(tmp_path: Path) -> None:
    nodes = Threads(Hangs)
    begun = time.monotonic()
    found = survey(nodes, f"file://{tmp_path}/store")
    assert found.silent == {"node2": "no answer to `store` in 0.5 s"} and time.monotonic() - begun < 60
    after = nodes.asked[nodes.asked.index(("store", "node2")) + 1 :]
    assert "node2" not in [name for _, name in after]
    assert {(pair.writer, pair.reader) for pair in found.pairs} == {("node1", "node3"), ("node3", "node1")}


def test_a_machine_that_never_joined_is_missed(tmp_path: Path) -> None:
    found = survey(Threads(None, 2), f"file://{tmp_path}/store")
    assert next(iter(cluster_checks(found, expected=3))).found == "2 of 3 joined"


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_partners_change_and_everybody_has_some(count: int) -> None:
    names = [f"n{number}" for number in range(count)]
    met = [frozenset(pair) for pairs in rounds(names, count) for pair in pairs]
    assert len(met) == len({*met}) == count * (count - 1) // 2
    assert all(len({*sum(pairs, ())}) == 2 * len(pairs) for pairs in rounds(names, 4))


def test_code_is_compared_by_content(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "room").mkdir(parents=True)
        (tmp_path / name / "room/a.py").write_text("x = 1\n")
        (tmp_path / name / "notes.txt").write_text(name)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/room").symlink_to(tmp_path / "one/room")
    same = {node_facts.source_digest(tmp_path / name) for name in ("one", "other", "linked")}
    assert len(same) == 1
    (tmp_path / "other/room/a.py").write_text("x = 2\n")
    assert node_facts.source_digest(tmp_path / "other") not in same


def test_what_a_driver_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, 560.1, 143771 MiB, 3'\necho 'NVIDIA H200, 560.1, 143771 MiB, [N/A]'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    gpus = node_facts.node_facts().gpus
    assert gpus == (
        GpuState("NVIDIA H200", "560.1", "143771 MiB", 3),
        GpuState("NVIDIA H200", "560.1", "143771 MiB", None),
    )
    program.write_text("#!/bin/sh\necho 'NVML: driver mismatch'\nexit 18\n")
    assert "driver mismatch" in node_facts.node_facts().gpu_trouble


def test_a_store_that_answers_wrongly_is_told_by_each_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise StorageError("write x", "403 AccessDenied", "")

    assert NodeProbe().store(f"file://{tmp_path}") == []
    monkeypatch.setattr("vitpipe.infra.storage.local.LocalStore.create", refuse)
    assert "403 AccessDenied" in NodeProbe().store(f"file://{tmp_path}")[0]


def test_two_processes_sum_over_the_network(tmp_path: Path) -> None:
    """The real thing, by gloo: ranks meet at the first one's port, and a rank alone does not wait for ever."""
    code = """if True:
        import sys
        from vitpipe.infra.ray.node_probe import NodeProbe
        probe, rank = NodeProbe(), int(sys.argv[1])
        port = probe.listen("127.0.0.1") if rank == 0 else int(sys.stdin.readline())
        print(port, flush=True)
        for name in sys.argv[2:]:
            print(probe.all_reduce("127.0.0.1", rank, 2, ("127.0.0.1", port), name, 1 << 20, 60), flush=True)
    """
    command = [sys.executable, "-c", code]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen([*command, "0", "a", "b"], **pipe)  # type: ignore[call-overload]
    port = first.stdout.readline()
    second = subprocess.Popen([*command, "1", "a", "b"], **pipe)  # type: ignore[call-overload]
    said = second.communicate(port, timeout=120)[0], first.communicate(timeout=120)[0]
    assert [len(one.split()) for one in said] == [3, 2] and all(float(one) > 0 for one in said[1].split())


def test_names_that_exist_are_refused_by_a_real_store(tmp_path: Path) -> None:
    probe, uri = NodeProbe(), f"file://{tmp_path}"
    assert probe.absent(uri, "a/b") and probe.create(uri, "a/b", "one") and not probe.create(uri, "a/b", "two")
    assert not probe.absent(uri, "a/b")
    with contextlib.suppress(AlreadyExists):
        probe.write(uri, "a/b", "three")
    assert probe.sees(uri, "a/b", "three") is not None and probe.sees(uri, "a/b", "four") is None


def test_the_verb_ends_with_7_and_names_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int, str | None]] = []

    def here(uri: str, expected: int, address: str | None) -> Survey:
        asked.append((uri, expected, address))
        return survey(Threads(SevenGpus), uri)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vitpipe.infra.ray.connect.survey_cluster", here)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("VITPIPE_NODES", "3")
    doctor = typed(capsys, "doctor")
    code, out, err = doctor("--cluster")
    assert code == 7 and "BAD GPUs: node2 has 7 x" in out and "not ok: GPUs" in err
    assert asked == [(f"file://{tmp_path}/runs", 3, "head:6379")]
    code, out, _ = doctor("--cluster", "--json", "--store", "file://./elsewhere")
    said = json.loads(out)
    assert code == 7 and said["error"]["code"] == 7 and [c["name"] for c in said["checks"] if not c["ok"]] == ["GPUs"]
    assert doctor("--address", "http://head:8265")[0] == doctor("--cluster", "--store", "gs://x")[0] == 2
