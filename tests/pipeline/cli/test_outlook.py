"""What a plan and a beginning run say of data and notes, and that nothing would start where nothing would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import encoded, photo_folder, picture, write
from small_spec import GOOD

from vitpipe.infra.errors import DriftError, UsageError
from vitpipe.pipeline.cli import live
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.cli.live import LiveRun
from vitpipe.pipeline.cli.outlook import data_words, outlook, standstill
from vitpipe.pipeline.plan.planned import Action, Plan, Planned
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.estimates import Estimate

Vitpipe = Callable[..., str]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vitpipe:
    """`plan` of a small spec on own photographs; what it prints, always with exit code 0."""
    monkeypatch.chdir(tmp_path)
    source = "{kind: folder, root: ./photos}, splits: folders"
    Path("my.yaml").write_text(GOOD.replace("{kind: digits}", source))
    for number in range(24):
        split, name = ("train", "val")[number >= 20], ("cat", "dog", "emu", "fox")[number % 4]
        write(tmp_path / f"photos/{split}/{name}/{number}.png", encoded(picture(number), "PNG"))

    def run(*args: str) -> str:
        assert cli.invoke(["plan", "my.yaml", *args]) == 0
        return capsys.readouterr().out

    return run


def node(action: Action, name: str = "data", problem: UsageError | None = None, **estimate: Any) -> Planned:
    return Planned(name, "ingest", action, "why", problem=problem, estimate=Estimate(**estimate))


def planned(*nodes: Planned) -> Plan:
    return Plan({one.node: one for one in nodes})


@pytest.mark.parametrize(
    ("names", "count", "splits", "words"),
    [
        ("cat dog emu fox", 4, {"val": 40, "train": 160}, "4 classes: cat, dog, emu, fox; train 160, val 40"),
        ("a b c d e", 5, {}, "5 classes: a, b, c, d, e"),
        (" ".join(f"n{at}" for at in range(1000)), 1000, {"train": 1_281_167},
         "1,000 classes: n0, n1, n2, n3 and 996 more; train 1,281,167"),
        ("cat", 1, {"more": 1, "test": 2}, "1 class: cat; test 2, more 1"),
        ("", 3, {"train": 2}, "3 classes; train 2"),
        ("", None, None, ""),
        ("x" * 50, 1, {}, f"1 class: {'x' * 37}..."),
    ],
)  # fmt: skip
def test_classes_and_counts(names: str, count: int | None, splits: dict[str, int] | None, words: str) -> None:
    found = node("run", num_classes=count, class_names=tuple(names.split()) or None, splits=splits)
    assert data_words(found) == words
    assert data_words(Planned("net", "pretrain", "run", "why", estimate=found.estimate)) == ""


def test_a_plan_prints_them_and_has_them_in_json(plan: Vitpipe) -> None:
    assert "data: run (not committed yet; 4 classes: cat, dog, emu, fox; train 20, val 4)" in plan()
    data, net = json.loads(plan("--json"))["nodes"]
    assert (data["classes"], data["splits"]) == (4, {"train": 20, "val": 4})
    assert data["class_names"] == ["cat", "dog", "emu", "fox"] and "class_names" not in net
    assert (net["classes"], net["splits"]) == (4, None)


def test_a_run_says_the_data_and_each_note_once_before_it_begins() -> None:
    noted = {"num_classes": 2, "splits": {"train": 4}, "notes": ("too few",)}
    lines = list(outlook(planned(node("run", "a", **noted), node("resume", "b", **noted), node("reuse", "c", **noted))))
    assert lines == [f"{name}: 2 classes; train 4" for name in "abc"] + ["a and 1 more: too few"]
    assert list(outlook(planned(node("run", splits={"train": 4})))) == ["data: train 4"]


@pytest.mark.parametrize("person", [True, False], ids=["terminal", "log"])
def test_a_run_shows_it(
    person: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "is_terminal", lambda: person)
    with LiveRun(load(GOOD.replace("./runs", f"{tmp_path}/runs"))) as watched:
        watched.options().on_plan(planned(node("run", num_classes=2, splits={"train": 4}, notes=("too few",))))
    out = capsys.readouterr().out
    assert out.count("data: 2 classes; train 4") == out.count("data: too few") == 1


def test_nothing_would_start_is_said_where_it_is_so() -> None:
    missing = UsageError("ingest x", "no such folder", "mount it")
    run, there, stuck = node("run", "net"), node("reuse"), node("blocked", problem=missing)
    assert standstill(planned(there, run), None) == ""
    assert standstill(planned(there), None) == "Nothing would start: 1 of 1 nodes are committed"
    said = standstill(planned(stuck, run), missing)
    assert said.startswith("Nothing would start: data is blocked, and a run begins no node")
    drift = standstill(planned(node("drifted", "net"), there), DriftError("run x", "other", "give another `name`"))
    assert drift == "Nothing would start: net drifted from what is committed; give another `name`"


def test_a_plan_says_so_and_ends_with_0(plan: Vitpipe, tmp_path: Path) -> None:
    assert "Nothing would start" not in plan() and json.loads(plan("--json"))["nothing_would_start"] == ""
    blocked = plan("nodes.data.config.splits={train: 1.0}")
    assert "set `splits: folders`" in blocked.lower() and "\nNothing would start: data is blocked" in blocked
    assert json.loads(plan("nodes.data.config.source.root=./none", "--json"))["nothing_would_start"]
    photo_folder(tmp_path / "flat")
    assert "Nothing" not in plan("nodes.data.config.splits={train: 1.0}", "nodes.data.config.source.root=./flat")
