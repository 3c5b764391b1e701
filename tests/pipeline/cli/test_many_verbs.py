"""ls, diff and compare, on real runs of two small stages."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe
from tiny_stages import HOOKS

from vitpipe.infra.errors import StageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.cli.run_listing import age
from vitpipe.pipeline.store.consumption import Consumption, at_least, spent
from vitpipe.pipeline.store.held import held_seconds
from vitpipe.pipeline.store.records import read_external
from vitpipe.stages.seal import SEAL

SPEC = """\
version: 1
name: {name}
store: file://./{store}
nodes:
  a: {{stage: make, config: {{value: {value}}}}}
  b: {{stage: make, config: {{value: 3}}}}
  sum: {{stage: add, needs: {{shards: [a, b]}}}}
"""


@pytest.fixture
def made(vitpipe: Vitpipe, tmp_path: Path) -> Callable[..., str]:
    """Runs a spec of that name and value; its URI."""

    def make(name: str, value: int, store: str = "runs", more: str = "") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(SPEC.format(name=name, value=value, store=store) + more)
        vitpipe("run", path, "--json")
        return f"file://{tmp_path}/{store}/{name}"

    return make


def unsealed(record: Path) -> dict[str, Any]:
    return {key: value for key, value in json.loads(record.read_text()).items() if key != SEAL}


def test_ls_says_state_time_scores_and_cost_of_every_run(vitpipe: Vitpipe, made: Callable[..., str]) -> None:
    one, two = made("one", 2), made("two", 5)
    for store in ("runs", "file://./runs", "one.yaml"):
        code, out, _ = vitpipe("ls", store, "--json")
        runs = {run["run"]: run for run in json.loads(out)["runs"]}
        assert code == 0 and set(runs) == {one, two}
    assert [run["state"] for run in runs.values()] == ["committed", "committed"]
    assert runs[two]["started"] <= runs[two]["ended"] and runs[two]["cost"]["seconds"] > 0
    (score,) = runs[two]["scores"]
    assert (score["node"], score["metric"], score["value"]) == ("sum", "sum", 16)

    code, out, _ = vitpipe("ls")
    assert code == 0 and "one: committed; ended " in out and "sum 10; nodes took " in out


def test_ls_passes_over_what_is_no_run_and_names_what_it_cannot_read(
    vitpipe: Vitpipe, made: Callable[..., str], tmp_path: Path
) -> None:
    made("whole", 2)
    for name in ("newer", "torn", "stale"):
        made(name, 2)
    runs = tmp_path / "runs"
    (runs / "photos/cat").mkdir(parents=True)
    (runs / "photos/cat/1.jpg").write_bytes(b"")
    (runs / "Not A Run").mkdir()
    (runs / "loose.txt").write_text("")
    (runs / "begun").mkdir()
    (runs / "begun/lease.json").write_bytes((runs / "whole/lease.json").read_bytes())
    (runs / "torn/spec.yaml").write_text("nodes: {a: {}}\n")
    (runs / "stale/sum/record.json").write_text("{")
    record = unsealed(runs / "newer/sum/record.json")
    (runs / "newer/sum/record.json").write_text(json.dumps(record | {"schema": 99}))
    code, out, _ = vitpipe("ls", "--json")
    found = {run["name"]: run for run in json.loads(out)["runs"]}
    assert code == 0 and set(found) == {"whole", "newer", "torn", "stale", "begun"}
    assert {name: run["state"] for name, run in found.items()} == {
        "whole": "committed", "newer": "unreadable", "torn": "unreadable", "stale": "unreadable", "begun": "begun"
    }  # fmt: skip
    assert "chema 99 was written by a newer vitpipe" in found["newer"]["why"]
    assert "torn/spec.yaml" in found["torn"]["why"] and "stale/sum/record.json" in found["stale"]["why"]
    assert vitpipe("ls")[0] == 0


def test_ls_says_failed_where_status_does(vitpipe: Vitpipe, made: Callable[..., str]) -> None:
    def fails(ctx: Any) -> None:
        raise StageError("make it", "it broke", "mend it")

    HOOKS["sum"] = fails
    uri = made("broken", 2)
    (run,) = json.loads(vitpipe("ls", "runs", "--json")[1])["runs"]
    assert run["state"] == json.loads(vitpipe("status", uri, "--json")[1])["state"] == "failed"
    assert run["scores"] == [] and run["ended"]


def test_ls_asks_little_of_the_store(
    vitpipe: Vitpipe, made: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        made(f"run-{number}", number)
    asked: list[tuple[str, str]] = []
    for verb in ("read", "read_version", "size", "list", "folders"):
        real = getattr(LocalStore, verb)

        def call(self: LocalStore, *args: Any, real: Any = real, verb: str = verb, **more: Any) -> Any:
            asked.append((verb, f"{self.root.name}/{args[0] if args else ''}"))
            return real(self, *args, **more)

        monkeypatch.setattr(LocalStore, verb, call)
    assert vitpipe("ls", "runs", "--json")[0] == 0
    per_run = Counter(what.partition("/")[2] for verb, what in asked if what.startswith("run-"))
    # the runs' own pollers, which linger for a while, read leases too
    assert per_run.pop("lease.json") >= 5 and per_run.pop("stop.json", 0) >= 0
    assert per_run == {"spec.yaml": 5, "copies.json": 5, "": 5}, "and one listing"
    assert Counter(asked)["folders", "runs/"] == 1
    assert not any(verb in ("read_version", "size") or "progress" in what for verb, what in asked)


def test_ls_refuses_what_is_no_store(vitpipe: Vitpipe, made: Callable[..., str]) -> None:
    code, _, err = vitpipe("ls", made("one", 2))
    assert code == 2 and "that is a run itself, one" in err.lower() and "vitpipe artifacts ls" in err
    code, _, err = vitpipe("ls", "nowhere")
    assert code == 2 and "no such folder" in err.lower()
    assert vitpipe("ls", "gs://bucket")[0] == 2


def test_runs_beside_their_yamls_are_found_from_another_folder(
    vitpipe: Vitpipe, made: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("one", "two")):
        made(name, number)
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    code, out, err = vitpipe("ls", "../one.yaml", "--json")
    assert code == 0 and {run["name"] for run in json.loads(out)["runs"]} == {"one", "two"}
    assert "beside ../one.yaml" in err
    code, out, err = vitpipe("diff", "../one.yaml", "../two.yaml")
    assert code == 0 and "a: config.value 0 -> 1\n" in out and "beside ../two.yaml" in err
    (tmp_path / "deeper/runs").mkdir()
    assert json.loads(vitpipe("ls", "../one.yaml", "--json")[1])["runs"] == [], "what it says is there"


def test_diff_says_each_field_as_drift_does(vitpipe: Vitpipe, made: Callable[..., str]) -> None:
    one, two = made("one", 2), made("two", 5, store="elsewhere", more="  c: {stage: make}\n")
    code, out, _ = vitpipe("diff", one, two)
    assert code == 0 and "a: config.value 2 -> 5\n" in out and "sum: inputs.shards " in out
    assert "c: only in two\n" in out and "equal: b\n" in out
    found = json.loads(vitpipe("diff", one, two, "--json")[1])
    assert {"node": "a", "field": "config.value", "a": 2, "b": 5} in found["changes"]
    assert (found["only_a"], found["only_b"], found["equal"]) == ([], ["c"], ["b"])

    assert "no difference" in vitpipe("diff", one, made("three", 2))[1]
    code, _, err = vitpipe("diff", one, f"{one}x")
    assert code == 2 and "did you mean 'one'" in err.lower()
    assert vitpipe("diff", one, one)[0] == 2


def test_diff_takes_a_default_for_what_one_side_leaves_out(
    vitpipe: Vitpipe, made: Callable[..., str], tmp_path: Path
) -> None:
    one, two = made("one", 1), made("two", 4)
    assert "a: config.value 1 -> 4\n" in vitpipe("diff", one, two)[1]


def test_compare_lays_out_what_differs_with_scores_and_cost(
    vitpipe: Vitpipe, made: Callable[..., str], tmp_path: Path
) -> None:
    uris = [made(name, value) for name, value in (("one", 2), ("two", 5), ("three", 2))]
    code, out, _ = vitpipe("compare", *uris, "--csv", "t.csv", "--latex", "t.tex", "--to", "page.html")
    assert code == 0 and "two: value 5; sum 16; nodes took " in out and f"the page: {tmp_path}/page.html" in out
    head, *lines = (tmp_path / "t.csv").read_text().splitlines()
    assert head.startswith("run,state,a.config.value,sum,sum std,seconds") and len(lines) == 3
    assert lines[1].startswith(f"{uris[1]},committed,5,16")
    assert r"two & 5 & 16" in (tmp_path / "t.tex").read_text()
    page = (tmp_path / "page.html").read_text()
    assert "two is best on sum" in page and "http" not in page.replace("http-equiv", "") and "<script" not in page

    code, out, _ = vitpipe("compare", *uris, "--json")
    found = json.loads(out)
    assert found["fields"] == ["a.config.value"] and "page" not in found
    assert [run["values"]["a.config.value"] for run in found["runs"]] == [2, 5, 2]
    assert [run["scores"] for run in found["runs"]] == [{"sum": 10}, {"sum": 16}, {"sum": 10}]
    assert found["equal"] == ["b", "sum"]
    assert not list(tmp_path.glob("compare*")), "no page lies where nobody asked for one"


def test_compare_by_named_fields(vitpipe: Vitpipe, made: Callable[..., str]) -> None:
    uris = [made("one", 2), made("two", 5)]
    found = json.loads(vitpipe("compare", *uris, "--only", "value, pieces", "--json")[1])
    assert found["fields"] == ["a.config.value", "a.config.pieces", "b.config.pieces"], "what differs first"
    assert found["runs"][0]["values"]["b.config.pieces"] == 2
    code, out, err = vitpipe("compare", *uris, "--only", "valuex")
    assert (code, out) == (2, "") and "near is value" in err and "differ in a.config.value" in err


def test_compare_takes_older_records_other_stores_and_runs_without_a_score(
    vitpipe: Vitpipe, made: Callable[..., str], tmp_path: Path
) -> None:
    one, two = made("one", 2), made("two", 5, store="elsewhere")
    HOOKS["sum"] = lambda ctx: (_ for _ in ()).throw(StageError("add", "it broke", "mend it"))
    bare = made("bare", 4)
    record = tmp_path / "runs/one/a/record.json"
    old = unsealed(record)
    record.write_text(json.dumps(old | {"schema": 1}))
    code, out, _ = vitpipe("compare", one, two, bare)
    assert code == 0 and "bare: value 4; sum –; nodes took " in out and "no score yet: bare" in out

    record.write_text(json.dumps(old | {"schema": 99}))
    code, _, err = vitpipe("compare", one, two)
    assert code == 2 and f"{one}/a/record.json" in err and "update vitpipe" in err.lower()
    assert vitpipe("compare", two)[0] == 2


def test_cost_counts_what_was_held_or_else_asked_for(vitpipe: Vitpipe, made: Callable[..., str]) -> None:
    record = read_external(made("one", 2) + "/a").record.model_copy(update={"seconds": 3600.0, "metrics": {}})
    gang = record.model_copy(update={"resources": {"workers": [2, 4], "gpus_per_worker": 1, "cpus_per_worker": 3}})
    found = spent([record, gang], price_per_gpu_hour=2.5)
    assert (found.seconds, found.core_hours, found.gpu_hours, found.price) == (7200, 1 + 6, 2, 5)
    assert spent([record]).price is None
    measured = gang.model_copy(update={"metrics": held_seconds({"CPU": 72_000.0, "GPU": 18_000.0})})
    assert (spent([measured]).core_hours, spent([measured], 2.0).price) == (20, 10)
    taken_over = measured.model_copy(update={"adopted": read_external(made("one", 2) + "/a").ref})
    assert spent([taken_over]) == spent([gang]) == spent([], None, [at_least(gang.resources, 3600.0)])
    bare = record.model_copy(update={"metrics": held_seconds({})})
    assert spent([bare]) == spent([record]), "nothing was handed out"
    assert spent([record], 2.0).price is None, "no GPU, no price"
    assert spent([measured], 2.0, [(60.0, 0.0, 7200.0)]) == Consumption(3660, 20, 7, 14)


def test_an_age_is_said_in_its_largest_unit() -> None:
    assert age("2020-01-01T00:00:00+00:00").endswith(" d ago") and age(None) == ""
