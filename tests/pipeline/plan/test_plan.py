"""Decisions on nodes: pure, so made here from facts that no store has ever held."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_stages import tiny_spec

from vitpipe.infra.errors import DriftError, IntegrityError, UsageError
from vitpipe.pipeline.plan.decide import make_plan, refusal
from vitpipe.pipeline.plan.fingerprint import fingerprints
from vitpipe.pipeline.plan.planned import StoreFacts
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.store.attempts import Attempt
from vitpipe.pipeline.store.records import Committed, encode
from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.record import Record

NODES: dict[str, Any] = {
    "a": {"value": 2},
    "b": {"value": 3, "needs": {"sources": ("a",)}},
    "c": {"value": 4, "needs": {"sources": ("b",)}},
    "other": {"value": 9},
}


def graph_of(nodes: dict[str, Any] = NODES) -> Graph:
    return tiny_spec(Path("/nowhere"), nodes).graph


def facts_of(committed: str, wanted: dict[str, Any] = NODES, was: dict[str, Any] = NODES, **more: Any) -> StoreFacts:
    """A run of `was` in which those nodes are committed, asked for `wanted`."""
    recipes, records = fingerprints(graph_of(was), {}), {}
    for id, node in graph_of(was).nodes.items():
        if id not in committed.split():
            continue
        inputs = {name: tuple(records[ref].ref for ref in refs) for name, refs in node.needs.items()}
        output = ShardSet(manifest_sha256="m", num_classes=1, splits={})
        record = Record(
            node=id, stage="make", fingerprint=recipes[id].sha256, recipe=dict(recipes[id].recipe), config={},
            inputs=inputs, output=output.facts(), files=(), code="", versions={}, started="then", seconds=1,
            attempt="a1",
        )  # fmt: skip
        records[id] = Committed(f"file:///nowhere/{id}", record, encode(record), "v")
    return StoreFacts(fingerprints(graph_of(wanted), {}), records, **more)


def attempt(name: str, of: dict[str, Any] = NODES, node: str = "a", pieces: int = 1, **changes: Any) -> Attempt:
    wanted = fingerprints(graph_of(of), {})[node]
    fields = {"fence": int(name[1:]), "restart": 0, "inputs": {}, **changes}
    return Attempt(name=name, fingerprint=wanted.sha256, recipe=wanted.recipe, pieces=pieces, **fields)


def actions(facts: StoreFacts, wanted: dict[str, Any] = NODES, replacing: tuple[str, ...] = ()) -> list[str]:
    return [planned.action for planned in make_plan(graph_of(wanted), facts, replacing).nodes.values()]


def changed(**values: dict[str, Any]) -> dict[str, Any]:
    return {id: {**fields, **values.get(id, {})} for id, fields in NODES.items()}


def test_nothing_yet_all_done_and_half_done() -> None:
    assert actions(facts_of("")) == ["run"] * 4
    assert actions(facts_of("a b c other")) == ["reuse"] * 4
    assert actions(facts_of("a b")) == ["reuse", "reuse", "run", "run"]
    plan = make_plan(graph_of(), facts_of("a"))
    assert plan.nodes["c"].reason == "after b" and plan.nodes["a"].estimate.steps is None
    assert plan.nodes["b"].estimate.steps == 2 and refusal(plan, "file:///x") is None


def test_what_is_there_costs_nothing_and_is_still_described() -> None:
    facts = facts_of("a")
    was = facts.records["a"].record
    estimate, output = (
        {"steps": 7, "hours": 2.0, "notes": ["slow"], "averaged": True},
        {**was.output, "splits": {"train": 5}},
    )
    spent = was.model_copy(update={"estimate": estimate, "output": output})
    found = make_plan(graph_of(), replace(facts, records={"a": replace(facts.records["a"], record=spent)})).nodes
    assert (found["a"].action, found["b"].action) == ("reuse", "run")
    assert found["a"].to_json()["estimate"] == {"splits": {"train": 5}, "num_classes": 1, "averaged": True, "notes": []}
    assert found["a"].to_json()["classes"] == 1 and found["b"].estimate.steps == 2


def test_pieces_of_the_same_recipe_are_resumed_newest_first() -> None:
    left = {"a": (attempt("a3", pieces=0), attempt("a2", pieces=2), attempt("a1"))}
    plan = make_plan(graph_of(), facts_of("", attempts=left))
    assert plan.nodes["a"].action == "resume" and plan.nodes["a"].reason == "2 finished pieces of a2"


def test_an_attempt_that_left_nothing_is_no_drift() -> None:
    wanted = changed(a={"value": 7})
    assert actions(facts_of("", wanted, attempts={"a": (attempt("a1", pieces=0),)}), wanted)[0] == "run"


def test_pieces_only_of_another_recipe_are_drift() -> None:
    wanted = changed(a={"value": 7})
    facts = facts_of("", wanted, attempts={"a": (attempt("a1"),)})
    assert actions(facts, wanted) == ["drifted", "blocked", "blocked", "run"]
    assert actions(facts, wanted, ("a",)) == ["run"] * 4
    both = {"a": (attempt("a2", wanted), attempt("a1"))}
    assert actions(facts_of("", wanted, attempts=both), wanted)[0] == "resume"


def test_drift_names_fields_and_remedies_once_at_its_root() -> None:
    wanted = changed(b={"value": 5})
    plan = make_plan(graph_of(wanted), facts_of("a b c other", wanted))
    assert [planned.action for planned in plan.nodes.values()] == ["reuse", "drifted", "blocked", "reuse"]
    error = refusal(plan, "file:///runs/tiny")
    assert isinstance(error, DriftError) and error.code == 3
    assert error.found.endswith("b: config.value 3 -> 5")
    assert "another `name`" in error.do and "--replace b" in error.do and "--replace c" not in error.do


def test_two_roots_of_drift_are_both_named() -> None:
    wanted = changed(b={"value": 5}, other={"value": 1}, c={"pieces": 3})
    plan = make_plan(graph_of(wanted), facts_of("a b c other", wanted))
    assert [planned.action for planned in plan.nodes.values()] == ["reuse", "drifted", "drifted", "drifted"]


def test_replace_reaches_downstream_and_nothing_else() -> None:
    wanted = changed(b={"value": 5})
    facts = facts_of("a b c other", wanted)
    assert actions(facts, wanted, ("b",)) == ["reuse", "run", "run", "reuse"]
    assert actions(facts, wanted, ("a",)) == ["reuse", "run", "run", "reuse"]
    assert actions(facts, wanted, ("c",)) == ["reuse", "drifted", "blocked", "reuse"]
    assert actions(facts_of("a b c other"), NODES, ("a",)) == ["reuse"] * 4
    with pytest.raises(UsageError, match="'b'"):
        make_plan(graph_of(), facts, ("bee",))


def test_another_record_of_an_input_is_drift() -> None:
    facts = facts_of("a b c other")
    again = facts.records["a"].record.model_copy(update={"started": "later"})
    facts = replace(
        facts, records={**facts.records, "a": replace(facts.records["a"], record=again, data=encode(again))}
    )
    plan = make_plan(graph_of(), facts)
    assert [planned.action for planned in plan.nodes.values()] == ["reuse", "drifted", "blocked", "reuse"]
    assert plan.nodes["b"].differences[0].startswith("inputs.sources record ")
    assert actions(facts, NODES, ("a",)) == ["reuse", "run", "run", "reuse"]


def as_before_seals(facts: StoreFacts, *nodes: str, **changes: Any) -> StoreFacts:
    """Those nodes' records as an earlier version wrote them, each taken by who needs it; then changed."""
    records = dict(facts.records)
    for id, node in graph_of().nodes.items():
        if id in records:
            inputs = {name: tuple(records[ref].ref for ref in refs) for name, refs in node.needs.items()}
            schema = 1 if id in nodes else 2
            record = records[id].record.model_copy(update={"schema_": schema, "inputs": inputs})
            records[id] = replace(records[id], record=record, data=encode(record))
    for id in nodes if changes else ():
        record = records[id].record.model_copy(update=changes)
        records[id] = replace(records[id], record=record, data=encode(record))
    return replace(facts, records=records)


def test_an_old_record_whose_bytes_alone_differ_is_damaged_and_never_to_be_replaced() -> None:
    assert actions(as_before_seals(facts_of("a b c other"), "a")) == ["reuse"] * 4
    plan = make_plan(graph_of(), as_before_seals(facts_of("a b c other"), "a", started="than"))
    assert [planned.action for planned in plan.nodes.values()] == ["blocked", "blocked", "blocked", "reuse"]
    error = refusal(plan, "file:///nowhere")
    assert isinstance(error, IntegrityError) and "damaged" in error.found and "b took" in error.found
    assert "`vitpipe artifacts verify file:///nowhere a`" in error.do and "--replace" not in str(error)
    assert refusal(make_plan(graph_of(), as_before_seals(facts_of("a b c"), "a", started="x"), ("a",)), "x").code == 8  # type: ignore[union-attr]
    recipe = {"stage": "make", "version": 2}
    plan = make_plan(graph_of(), as_before_seals(facts_of("other"), "other", recipe=recipe))
    assert "recipe and its fingerprint do not agree" in plan.nodes["other"].reason


def test_an_old_record_that_was_computed_again_is_drift() -> None:
    facts = as_before_seals(facts_of("a b c other"), "a", attempt="a2")
    assert make_plan(graph_of(), facts).nodes["b"].action == "drifted"
    files = (File(path="x", at="a1/x", bytes=1, sha256="0"),)  # none of a2: its name was changed, not its content
    facts = as_before_seals(facts_of("a b c other"), "a", attempt="a2", files=files)
    assert make_plan(graph_of(), facts).nodes["a"].action == "blocked"


def test_a_lost_record_is_damage_where_it_was_taken_and_its_files_are_there() -> None:
    facts = facts_of("a b c other", attempts={"a": (attempt("a1"),)})
    facts = replace(facts, records={id: record for id, record in facts.records.items() if id != "a"})
    error = refusal(make_plan(graph_of(), facts), "file:///nowhere")
    assert isinstance(error, IntegrityError) and "is lost, and b took one" in error.found
    assert "/nowhere a`" in error.do and "--replace" not in str(error)
    assert actions(facts, NODES, ("a",))[0] == "resume", "who knows of no copy may make it anew"


def test_a_lost_record_is_missed_by_its_mark_whoever_took_it() -> None:
    for wanted in (NODES, changed(other={"value": 5})):
        facts = facts_of("a b c", wanted, attempts={"other": (attempt("a1", node="other", pieces=0, committed=True),)})
        error = refusal(make_plan(graph_of(wanted), replace(facts, run="file:///nowhere")), "file:///nowhere")
        assert isinstance(error, IntegrityError) and error.asked == "read file:///nowhere/other/record.json"
        assert "is lost, and a1 committed one" in error.found and "--replace" not in str(error)
        assert actions(facts, wanted, ("other",))[3] == "run", "who knows of no copy may make it anew"
    unfinished = {"other": (attempt("a1", node="other", pieces=0),)}
    assert actions(facts_of("a b c", attempts=unfinished))[3] == "run"


def test_a_missing_file_is_damage_of_what_would_be_used() -> None:
    facts = facts_of("a b c other", absent={"b": "a1/x is missing"})
    plan = make_plan(graph_of(), facts)
    assert [planned.action for planned in plan.nodes.values()] == ["reuse", "blocked", "blocked", "reuse"]
    assert "a1/x is missing" in plan.nodes["b"].reason and refusal(plan, "x").code == 8  # type: ignore[union-attr]
    wanted = changed(b={"value": 5})
    assert actions(facts_of("a b c other", wanted, absent=facts.absent), wanted, ("b",))[1] == "run"


def test_a_result_whose_input_is_computed_again_is_drift() -> None:
    facts = facts_of("a b c")
    records = {id: record for id, record in facts.records.items() if id != "a"}
    plan = make_plan(graph_of(), replace(facts, records=records))
    assert plan.nodes["b"].action == "drifted" and plan.nodes["b"].reason == "inputs: a is computed again"


def test_a_stage_that_computes_something_else_now_is_drift() -> None:
    graph = graph_of()
    newer = {id: replace(node, stage=replace(node.stage, version=2)) for id, node in graph.nodes.items()}
    plan = make_plan(Graph(newer), replace(facts_of("a b c other"), wanted=fingerprints(Graph(newer), {})))
    assert plan.nodes["a"].differences == ("version 1 -> 2",)


def test_json_says_what_a_script_needs() -> None:
    first = make_plan(graph_of(), facts_of("")).to_json()["nodes"][0]
    assert first["node"] == "a" and first["stage"] == "make" and first["action"] == "run"
    assert first["estimate"]["steps"] == 2 and first["reason"]


def test_a_stage_that_cannot_begin_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise UsageError("read /data", "no such folder")

    monkeypatch.setattr("tiny_stages.estimate", missing)
    plan = make_plan(graph_of(), facts_of("a b c"))
    assert plan.nodes["other"].action == "blocked" and isinstance(refusal(plan, "x"), UsageError)
    assert refusal(make_plan(graph_of(), facts_of("a b c other")), "x") is None
