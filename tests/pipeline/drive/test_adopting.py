"""Equal results of other runs: what is adopted, what is not, and that neither run needs the other afterwards."""

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_stages
from counted import asked
from fake_clock import FakeClock
from faults.faulty_store import Crash, Fate, dying
from photos import photo_folder
from tiny_stages import HOOKS, STAGES, in_process, tiny_spec, tiny_ways

from vitpipe.infra.errors import DriftError, StorageError, VitpipeError
from vitpipe.infra.events import read_events
from vitpipe.infra.lease_state import Timing
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive import adopting
from vitpipe.pipeline.drive.gc import gc
from vitpipe.pipeline.drive.runner import Outcome, run
from vitpipe.pipeline.plan.decide import make_plan
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.plan.survey import survey
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.spec.load import PipelineSpec, load
from vitpipe.pipeline.store import results
from vitpipe.pipeline.store.retrieval import fault, verify
from vitpipe.pipeline.store.status import status_of
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import TaskContext

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
CHAIN = {"a": {"value": 2}, "b": {"value": 3}, "sum": {"stage": "add", "needs": {"shards": ("a", "b")}}}
OTHER_SUM = CHAIN | {"sum": {"stage": "add", "needs": {"shards": ("a", "b")}, "times": 5}}


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/runs" if request.param == "file" else request.getfixturevalue("s3_uri")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"file://{tmp_path}/runs"


@pytest.fixture
def begun() -> Iterator[list[str]]:
    """Nodes whose stage began to compute, as they begin."""
    names: list[str] = []
    for node in ("a", "b", "sum"):
        HOOKS[node] = lambda ctx: names.append(f"{ctx.run}/{ctx.node}")
    yield names
    HOOKS.clear()


def spec(uri: str, name: str, nodes: Mapping[str, Mapping[str, Any]] = CHAIN, reuse: str = "store") -> PipelineSpec:
    return replace(tiny_spec(Path("/none"), nodes, name), store=uri, reuse=reuse)  # type: ignore[arg-type]


def go(wanted: PipelineSpec, *replacing: str) -> Outcome:
    return run(wanted, replacing, tiny_ways(timing=QUICK))


def plan(wanted: PipelineSpec) -> Plan:
    return make_plan(wanted.graph, survey(open_store(wanted.uri), wanted.graph, reuse=wanted.reuse))


def actions(wanted: PipelineSpec) -> dict[str, str]:
    return {id: f"{one.action}{' adopted' if one.adopts else ''}" for id, one in plan(wanted).nodes.items()}


def remove(run: Store) -> None:
    for entry in list(run.list()):
        run.delete(entry.path)


def kinds(uri: str, node: str) -> list[str]:
    return [event.kind for event in read_events(open_store(uri)) if event.node == node]


def test_a_second_run_computes_only_what_differs_and_needs_the_first_no_more(uri: str, begun: list[str]) -> None:
    first = go(spec(uri, "one"))
    two = spec(uri, "two", OTHER_SUM)
    planned = plan(two).nodes
    assert planned["a"].reason.startswith("equal to one/a, committed 20") and planned["a"].reason.endswith(": adopted")
    assert actions(two) == {"a": "reuse adopted", "b": "reuse adopted", "sum": "run"}
    del begun[:]
    second = go(two)
    assert set(begun) == {"two/sum"} and second.committed["sum"].record.output["value"] == 5 * 10
    record, source = second.committed["a"].record, first.committed["a"]
    assert record.adopted == source.ref and record.schema_ == 3 and first.committed["a"].record.schema_ == 2
    assert [(file.path, file.sha256) for file in record.files] == [
        (file.path, file.sha256) for file in source.record.files
    ]
    assert kinds(two.uri, "a") == ["adopted", "committed"] and "started" in kinds(two.uri, "sum")
    remove(open_store(f"{uri}/one"))
    assert fault(two.uri, verify(two.uri)) is None
    assert status_of(open_store(two.uri), two.graph).state == "committed"
    assert not go(two).plan.due and gc(two.uri, timing=QUICK).paths == ()
    assert fault(two.uri, verify(two.uri)) is None
    assert actions(spec(uri, "three", OTHER_SUM)) == dict.fromkeys(CHAIN, "reuse adopted"), "of the second, in turn"
    third = go(spec(uri, "three", OTHER_SUM))
    assert third.committed["a"].record.adopted == source.ref, "who computed it stays known"
    assert third.committed["sum"].record.inputs["shards"][0] == third.committed["a"].ref


def test_two_names_of_one_file_are_both_there_where_it_is_adopted(folder: str) -> None:
    """A training's last step and its artifact name the same metrics: of each name the adopted result has a file."""
    nodes = {"a": {"value": 2}, "net": {"stage": "train", "needs": {"shards": ("a",)}}}
    first = go(spec(folder, "one", nodes)).committed["net"].record
    assert len({file.at for file in first.files}) < len({file.path for file in first.files}), "as a pretraining has it"
    two = spec(folder, "two", nodes)
    record = go(two).committed["net"].record
    assert record.adopted and {file.path for file in record.files} == {file.path for file in first.files}
    assert actions(two) == {"a": "reuse", "net": "reuse"} and fault(two.uri, verify(two.uri)) is None


@pytest.mark.parametrize("reuse", ["run", "data"])
def test_by_default_only_data_is_adopted(folder: str, reuse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go(spec(folder, "one"))
    assert actions(spec(folder, "two", reuse=reuse)) == dict.fromkeys(CHAIN, "run")
    monkeypatch.setitem(STAGES, "make", replace(STAGES["make"], reach="data"))
    data = "reuse adopted" if reuse == "data" else "run"
    assert actions(spec(folder, "two", reuse=reuse)) == {"a": data, "b": data, "sum": "run"}
    monkeypatch.setitem(STAGES, "make", replace(STAGES["make"], reach=None))
    assert actions(spec(folder, "two"))["a"] == "run"


def test_another_recipe_and_other_inputs_are_not_adopted(folder: str) -> None:
    go(spec(folder, "one"))
    assert actions(spec(folder, "two", CHAIN | {"a": {"value": 4}})) == {"a": "run", "b": "reuse adopted", "sum": "run"}
    two = spec(folder, "two", reuse="run")
    HOOKS["a"] = lambda ctx: ctx.out.put("more", b"of another machine")
    go(two)
    HOOKS.clear()
    store = LocalStore(Path(folder.removeprefix("file://")))
    path = f"two/{two.graph.nodes['sum'].id}"
    remove(store.child(path))  # its inputs are of the same bytes, in other records
    assert actions(replace(two, reuse="store"))["sum"] == "reuse adopted"


def test_a_run_that_has_begun_otherwise_or_is_committed_otherwise_stays_drifted(folder: str) -> None:
    go(spec(folder, "one"))
    two = spec(folder, "two", CHAIN | {"a": {"value": 7}})
    go(two)
    back = spec(folder, "two")
    with pytest.raises(DriftError):
        go(back)
    assert go(back, "a").committed["a"].record.adopted is None, "what is replaced is computed"


def test_a_damaged_result_is_computed_here_and_left_as_it_is(folder: str, begun: list[str]) -> None:
    first = go(spec(folder, "one"))
    at = first.committed["a"].record.files[0].at
    where = Path(f"{first.committed['a'].uri.removeprefix('file://')}/{at}")
    where.write_bytes(b"7")  # of the same size
    del begun[:]
    second = go(spec(folder, "two"))
    assert set(begun) == {"two/a"}, "b is adopted, and the sum: what it is of are the same bytes"
    assert second.committed["a"].record.adopted is None
    assert kinds(f"{folder}/two", "a") == ["adopted", "adoption_refused", "started", "committed"]
    assert fault(f"{folder}/two", verify(f"{folder}/two")) is None and where.read_bytes() == b"7"
    where.unlink()
    unfit = plan(spec(folder, "three", reuse="store")).nodes["a"]
    assert unfit.adopts and unfit.adopts.uri == f"{folder}/two/a"
    shutil.rmtree(f"{folder.removeprefix('file://')}/two")
    reason = plan(spec(folder, "three")).nodes["a"].reason
    assert reason == f"not committed yet; not adopted: one/a is of this recipe, but its {at} is missing"


def test_a_result_that_is_removed_meanwhile_is_computed_by_the_next_try(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(spec(folder, "one"))
    real = adopting.take

    def removed(*args: Any) -> Any:
        remove(open_store(f"{folder}/one"))
        return real(*args)

    monkeypatch.setattr(adopting, "take", removed)
    with pytest.raises(StorageError, match="removed or replaced meanwhile"):
        go(spec(folder, "two"))
    monkeypatch.undo()
    assert go(spec(folder, "two")).committed["sum"].record.output["value"] == 10


WRITE = tiny_stages._write


def write_one_more(item: tuple[TaskContext, str, int]) -> File:
    """Compute what no recipe tells apart: another number than the last time."""
    return WRITE((*item[:2], item[2] + 1))


def test_what_rests_on_bytes_that_came_out_otherwise_is_computed(
    folder: str, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = go(spec(folder, "one"))
    at = first.committed["a"].record.files[0].at
    Path(f"{first.committed['a'].uri.removeprefix('file://')}/{at}").write_bytes(b"7")  # of the same size
    monkeypatch.setattr(tiny_stages, "_write", write_one_more)
    del begun[:]
    second = go(spec(folder, "two"))
    assert set(begun) == {"two/a", "two/sum"} and second.committed["sum"].record.output["value"] == 12
    assert kinds(f"{folder}/two", "sum") == ["adopted", "adoption_refused", "started", "committed"]
    assert second.committed["sum"].record.adopted is None


def unreadable(path: Path) -> None:
    """Let every question about it end in an error, as a folder of another user's does."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path)


def test_what_may_not_be_read_of_other_runs_is_computed(folder: str, tmp_path: Path) -> None:
    go(spec(folder, "one"))
    unreadable(tmp_path / "runs/one/a/record.json")
    assert actions(spec(folder, "two"))["a"] == "run" and actions(spec(folder, "two"))["b"] == "reuse adopted"
    unreadable(tmp_path / "runs/_results")
    reason = plan(spec(folder, "two")).nodes["b"].reason
    assert reason.startswith("not committed yet; not adopted: what other runs have of it is not known: cannot list")
    assert go(spec(folder, "two")).committed["sum"].record.output["value"] == 10


def calmly(wanted: PipelineSpec) -> Outcome:
    """One driver without beats; its successor's watch over the silent lease takes no real time."""
    return run(wanted, (), tiny_ways(Timing(renew_s=3600, poll_s=0.3), FakeClock().clock))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_at_any_copy_or_commit_ends_in_one_adopted_result(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    nodes = {"a": {"value": 2}}
    calmly(spec(folder, "one", nodes))
    with dying(Fate()) as fate:
        calmly(spec(folder, "clean", nodes))
    copies = [n for n, call in enumerate(fate.calls, 1) if call.startswith("copy")]
    commits = [n for n, call in enumerate(fate.calls, 1) if call == "create record.json"]
    assert (len(copies), len(commits)) == (3, 1)
    for at in copies + commits:
        for after in (False, True):
            wanted = spec(folder, f"killed-{at}-{int(after)}", nodes)
            with dying(Fate(at=at, after=after)) as fate:
                with pytest.raises((Crash, VitpipeError)):
                    calmly(wanted)
                for thread in threading.enumerate():
                    if thread.name.startswith("node-"):
                        thread.join()  # it meets its fate at its next call
            assert fate.dead and calmly(wanted).committed["a"].record.adopted, (at, after)
            assert fault(wanted.uri, verify(wanted.uri)) is None


def test_a_store_of_many_runs_costs_as_many_questions_as_one_of_few(folder: str) -> None:
    go(spec(folder, "one"))

    def questions() -> int:
        with dying(Fate()) as fate:
            plan(spec(folder, "new"))
        polls = ("lease.json", "stop.json", "progress.json")  # of threads that a run before has left for a moment
        return len([call for call in fate.calls if not call.endswith(polls)])

    few = questions()
    for number in range(20):
        go(spec(folder, f"more-{number}", {"x": {"value": number + 50, "pieces": 1}}))
    assert questions() == few


def test_of_many_nodes_only_those_with_results_are_asked_for(folder: str) -> None:
    many = {f"n{number}": {"value": number} for number in range(6)}
    go(spec(folder, "one", {"n2": many["n2"], "n5": many["n5"]}))
    with asked(Path(folder.removeprefix("file://"))) as counts:
        found = actions(spec(folder, "two", many))
    assert {id for id, action in found.items() if action == "reuse adopted"} == {"n2", "n5"}
    asks = Counter(what.partition("/")[0] for what in counts.elements() if "_results" in what)
    assert asks == {"folders _results": 1, "list runs": 2}
    for few in ({"n2": many["n2"]}, many):  # the control: however it is asked, the answer is the same
        assert actions(spec(folder, "three", few))["n2"] == "reuse adopted"


def test_a_store_of_very_many_results_is_asked_node_by_node(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"n{number}": {"value": number} for number in range(6)}
    go(spec(folder, "one", many))
    monkeypatch.setattr(results, "NAMES_AT_MOST", 3)
    assert set(actions(spec(folder, "two", many)).values()) == {"reuse adopted"}


PHOTOS = """\
version: 1
name: NAME
store: file://./runs
nodes:
  images: {stage: ingest, config: {source: {kind: folder, root: ROOT}}}
  sum: {stage: add, needs: {shards: images}, config: {times: TIMES}}
"""


def photos(name: str, root: Path, times: int = 1, extra: str = "") -> PipelineSpec:
    text = PHOTOS.replace("NAME", name).replace("ROOT", str(root)).replace("TIMES", str(times))
    return load(text + extra, env={}, folder=root.parent)


def test_photographs_are_ingested_once_while_their_folder_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "add", STAGES["add"])
    root = tmp_path / "user"
    photo_folder(root)
    ways = tiny_ways(timing=QUICK, connect=in_process)
    run(photos("one", root), (), ways)
    for name, times in (("two", 2), ("three", 3)):
        outcome = run(photos(name, root, times), (), ways)
        assert outcome.plan.nodes["images"].reason.startswith("equal to "), name
        assert outcome.committed["images"].record.adopted and outcome.committed["sum"].record.adopted is None
        assert not run(photos(name, root, times), (), ways).plan.due
    assert "as it was ingested" in json.dumps(plan(photos("two", root, 2)).nodes["images"].to_json())
    assert actions(photos("four", root, extra="reuse: run\n"))["images"] == "run"
    assert photos("four", root, extra="reuse: run\n").graph == photos("one", root).graph, "no fingerprint sees the word"
    assert actions(photos("four", tmp_path / "elsewhere"))["images"] == "blocked", "no data where it is said to be"
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)  # with its times
    assert actions(photos("four", moved))["images"] == "reuse adopted"
    one = next(path for path in root.rglob("*") if path.is_file())
    os.utime(one, (1, 1))
    touched = plan(photos("four", root)).nodes["images"]
    assert touched.action == "run" and "the source may have changed" in touched.reason
    facts = survey(open_store(photos("four", root).uri), photos("four", root).graph, True, reuse="data")
    assert facts.equals["images"].results, "its digests say that it is the same"
    one.unlink()
    assert "1 gone" in plan(photos("four", root)).nodes["images"].reason
