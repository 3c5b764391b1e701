"""Bad YAML is told in words: every mistake at once, each at its line."""

from pathlib import Path

import pytest
from small_spec import GOOD, problems, with_node

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.spec.load import SpecError, load
from vitpipe.pipeline.spec.places import absolute_uri

CASES = {
    "unknown top key": (GOOD + "nods: {}", "spec:10:1: unknown key 'nods'; did you mean 'nodes'?"),
    "unknown node key": (GOOD.replace("needs:", "need:"), "spec:8:5: nodes.net.need: unknown key 'need'; did you mean"),
    "unknown field": (GOOD.replace("batch_images", "batch_image"), "9:52: nodes.net.config.batch_image: unknown key"),
    "nearest of a field": (GOOD.replace("batch_images", "batch_image"), "did you mean 'batch_images'?"),
    "nested unknown field": (GOOD.replace("image_px", "image_size"), "nodes.net.config.model.image_size: unknown key"),
    "missing field": (GOOD.replace(", total: 3 epochs", ""), "nodes.net.config.total: field is missing"),
    "missing top field": (GOOD.replace("version: 1\n", ""), "version: field is missing"),
    "duplicate key": (GOOD.replace("name: run", "name: run\nname: b"), "3:1: duplicate key 'name', first at line 2"),
    "duplicate inner key": (GOOD.replace("total:", "batch_images: 3, total:"), "duplicate key 'batch_images'"),
    "quoted number": (GOOD.replace("images: 30", "images: '30'"), "should be a valid integer, not '30'"),
    "true is no number": (GOOD.replace("images: 30", "images: true"), "should be a valid integer, not true"),
    "no mapping": (GOOD.replace("{variant: S/16, image_px: 32}", "S/16"), "should be a mapping, not 'S/16'"),
    "unknown word": (with_node("{stage: ingest, config: {source: {kind: foldr}}}"), "did you mean 'folder'?"),
    "unknown variant": (GOOD.replace("S/16", "S/15"), "unknown variant 'S/15'; did you mean 'S/16'? (known: Ti/16"),
    "bad duration": (GOOD.replace("3 epochs", "3 weeks"), "a duration is a number and a unit"),
    "unknown stage": (with_node("{stage: pretrian}"), "unknown stage 'pretrian'; did you mean 'pretrain'?"),
    "no stage": (with_node("{}"), "nodes.more.stage: field is missing"),
    "indivisible batch": (
        GOOD + "    resources: {micro_batch: 7}",
        "batch_images 30 is not a multiple of micro_batch 7: 30 = 4 x 7 + 2",
    ),
    "unknown node": (GOOD.replace("shards: data", "shards: dta"), "unknown node 'dta'; did you mean 'data'?"),
    "unknown input": (GOOD.replace("shards: data", "shard: data"), "unknown input of pretrain 'shard'; did you mean"),
    "missing input": (GOOD.replace("    needs: {shards: data}\n", ""), "pretrain needs a ShardSet here"),
    "wrong artifact": (
        with_node("{stage: convert, needs: {checkpoint: data}}"),
        "takes a Checkpoint, and data (ingest) gives a ShardSet",
    ),
    "list for a single": (with_node("{stage: convert, needs: {checkpoint: [net]}}"), "takes a single Checkpoint"),
    "scores without weights": (
        with_node("{stage: evaluate, needs: {data: data, weights: other}, config: {method: classify}}")
        + "  other: {stage: evaluate, needs: {data: data}, "
        "config: {method: fewshot, features: raw_pixels, image_px: 8}}",
        "takes a Weights, and other (evaluate) gives a Score",
    ),
    "no weights": (with_node("{stage: evaluate, needs: {data: data}, config: {method: classify}}"), "needs weights"),
    "cycle": (
        GOOD.replace("stage: ingest,", "stage: ingest, needs: {exclude: more},")
        + "  more: {stage: ingest, needs: {exclude: data}, config: {source: {kind: digits}}}",
        "needs go round in a circle: ",
    ),
    "cycle of one": (GOOD.replace("stage: ingest,", "stage: ingest, needs: {exclude: data},"), "data -> data"),
    "name escapes a path": (GOOD.replace("name: run", "name: ../run"), "name: must match"),
    "upper case name": (GOOD.replace("name: run", "name: Run"), "name: must match"),
    "node name escapes": (GOOD.replace("  data:", "  ../data:"), "the node's name '../data' must match"),
    "reserved node": (GOOD.replace("  data:", "  events:"), "the node's name 'events' is reserved"),
    "no store": (GOOD.replace("file://./runs", "./runs"), "store: not a store: it is not file://./folder"),
    "store of another kind": (GOOD.replace("file://./runs", "gs://bucket/x"), "store: not a store"),
    "endpoint in a store": (GOOD.replace("file://./runs", "s3://host:9000/bucket"), "store: not a store"),
    "tag": (GOOD.replace("name: run", "name: !!python/object/apply:os.system [ls]"), "2:7: YAML tags"),
    "local tag": (GOOD.replace("name: run", "name: !x run"), "YAML tags (!...) are not accepted"),
    "merge key": (GOOD.replace("name: run", "name: run\n<<: {a: 1}"), "merge keys (<<) are not accepted"),
    "broken YAML": (GOOD + "  x: [", "not valid YAML: "),
    "tab": (GOOD + "\tx: 1", "not valid YAML: "),
    "second document": (GOOD + "---\nversion: 1\n", "a second document begins here"),
    "not a mapping": ("- 1\n- 2\n", "a spec is a mapping"),
    "empty": ("", "a spec is a mapping"),
    "another version": (GOOD.replace("version: 1", "version: 2"), "this vitpipe reads version 1, not 2"),
    "version true": (GOOD.replace("version: 1", "version: true"), "reads version 1, not true"),
    "unknown reference": (GOOD.replace("S/16", "'${var.x}'"), "unknown reference"),
    "unclosed reference": (GOOD.replace("S/16", "'${vars.x'"), "a reference that is not closed"),
    "each without foreach": (GOOD.replace("S/16", "'${each.x}'"), "has no `foreach` around it"),
    "unknown var": (GOOD.replace("S/16", "'${vars.x}'") + "vars: {y: 1}", "unknown var 'x'"),
    "vars in a circle": (
        GOOD.replace("S/16", "'${vars.x}'") + "vars: {x: '${vars.y}', y: '${vars.x}'}",
        "vars go round in a circle",
    ),
    "mapping inside a text": (GOOD.replace("S/16", "'a${vars.x}'") + "vars: {x: {}}", "must stand alone in its string"),
    "foreign environment": (GOOD.replace("S/16", "'${env:HOME}'"), "only variables named VITPIPE_*"),
    "unset environment": (GOOD.replace("S/16", "'${env:VITPIPE_X}'"), "the environment has no variable VITPIPE_X"),
    "extends nothing": (GOOD + "extends: nowhere.yaml", "extends: there is no file"),
    "store on the Hub": (GOOD.replace("file://./runs", "hf://me/x"), "store: not a store: the Hub holds no runs"),
    "artifact on the Hub": (GOOD.replace("shards: data", "shards: 'hf://me/x'"), "the Hub holds no runs: name it as"),
    "bad artifact URI": (GOOD.replace("shards: data", "shards: 'http://x/y'"), "not the URI of an artifact"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_told_in_words(text: str, words: str) -> None:
    found = problems(text)

    assert any(words in line for line in found), found


def test_a_good_spec_has_no_problem() -> None:
    assert list(load(GOOD).graph.nodes) == ["data", "net"]


def test_all_problems_are_told_at_once_each_at_its_line() -> None:
    found = problems(GOOD.replace("image_px", "imagepx").replace("shards: data", "shards: dta").replace("run", "R"))

    lines = [line.split(":")[1] for line in found]
    assert lines == ["2", "8", "9", "9"]


OVERRIDES = {
    "no equals": ("nodes.net.config", "an override is written a.b.c=value"),
    "empty step": ("nodes..x=1", "an override is written a.b.c=value"),
    "unknown node": ("nodes.nett.config.seed=1", "unknown node 'nett'; did you mean 'net'?"),
    "unknown field": ("nodes.net.config.sead=1", "override nodes.net.config.sead: nodes.net.config.sead: unknown key"),
    "into a value": ("nodes.net.stage.x=1", "nodes.net.stage: has no fields to override"),
    "wrong type": ("nodes.net.config.seed=x", "should be a valid integer, not 'x'"),
    "broken YAML": ("nodes.net.config.seed=[", "not valid YAML"),
    "extends": ("extends=x.yaml", "`extends` is read before overrides"),
}


@pytest.mark.parametrize(("override", "words"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_a_bad_override_is_told_in_words(override: str, words: str) -> None:
    found = problems(GOOD, override)

    assert any(words in line for line in found), found


def test_a_file_that_cannot_be_read_is_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")

    for path in (tmp_path / "nowhere.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(UsageError, match=path.name):
            load(path)


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml")

    with pytest.raises(SpecError, match="extends itself"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize("tagged", ["name: !!python/name:os.system x", "name: !t [a]", "name: !t"])
def test_a_tag_is_one_problem(tagged: str) -> None:
    text = f"version: 1\n{tagged}\nstore: file://./runs\nnodes: {{data: {{stage: ingst}}}}\n"
    with pytest.raises(SpecError) as refused:
        load(text)
    assert [problem.text for problem in refused.value.problems] == ["YAML tags (!...) are not accepted"]


def test_an_unknown_stage_is_one_problem_and_its_node_is_a_known_one() -> None:
    table = "{stage: report, needs: {scores: dat}}"
    nodes = f"nodes: {{data: {{stage: ingst}}, table: {table}}}"
    with pytest.raises(SpecError) as refused:
        load(f"version: 1\nname: x\nstore: file://./runs\n{nodes}\n")
    told = [problem.text for problem in refused.value.problems]
    assert len(told) == 2 and "unknown stage 'ingst'" in told[0] and "did you mean 'data'?" in told[1]


def test_what_needs_a_node_of_an_unknown_stage_is_no_problem() -> None:
    last = "weights: {stage: convert, needs: {checkpoint: backbone}, config: {formats: [native]}}"
    text = "version: 1\nname: x\nstore: file://./runs\nnodes: {{backbone: {{stage: pretrian}}, {}}}\n"
    for named, problems_told in ((last, 1), (last.replace("checkpoint: backbone", ""), 2)):
        with pytest.raises(SpecError) as refused:
            load(text.format(named))
        assert len(refused.value.problems) == problems_told, refused.value


def test_a_store_at_home_is_understood_as_a_root_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute_uri("file://~/runs", Path("/elsewhere")) == f"file://{tmp_path}/runs"
    assert open_store("file://~/runs").uri == f"file://{tmp_path}/runs"
    assert absolute_uri("file://./~/runs", Path("/elsewhere")) == "file:///elsewhere/~/runs"
