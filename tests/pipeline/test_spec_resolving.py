"""What a spec says once `extends`, overrides, `vars` and the environment have been filled in, in this order."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import PipelineSpec, load
from vitpipe.pipeline.spec.text.problems import Problems
from vitpipe.pipeline.spec.text.yaml_source import parse, plain

BASE = """\
version: 1
name: run
store: file://./runs
vars: {seed: 1, lr: 1e-3}
nodes:
  data: {stage: ingest, config: {source: {kind: digits}}}
  net:
    stage: pretrain
    needs: {shards: data}
    config:
      model: {variant: S/16, image_px: 32}
      batch_images: 32
      total: 3 epochs
      seed: "${vars.seed}"
      optimizer: {peak_lr: "${vars.lr}", betas: [0.9, 0.99]}
"""


def net(spec: PipelineSpec) -> dict[str, object]:
    return spec.graph.nodes["net"].config.model_dump(mode="json")


def test_vars_keep_their_type_alone_and_become_text_inside() -> None:
    spec = load(BASE.replace("name: run", "name: 'run-${vars.seed}'"))

    assert (spec.name, net(spec)["seed"], net(spec)["optimizer"]["peak_lr"]) == ("run-1", 1, 1e-3)


@pytest.mark.parametrize("text", ["3e-4", "3E-4", "0.0003", "3.e-4", "+3e-4"])
def test_an_override_is_read_as_yaml(text: str) -> None:
    spec = load(BASE, [f"nodes.net.config.optimizer.peak_lr={text}"])

    assert net(spec)["optimizer"]["peak_lr"] == 3e-4


def test_an_override_makes_the_mappings_on_its_way() -> None:
    spec = load(BASE, ["nodes.net.config.augment.randaugment.layers=3", "nodes.net.resources={zero: 2}"])

    assert net(spec)["augment"]["randaugment"]["layers"] == 3
    assert spec.graph.nodes["net"].resources.zero == 2


def test_a_later_override_wins_and_vars_come_after() -> None:
    spec = load(BASE, ["vars.seed=5", "vars.seed=6"])

    assert net(spec)["seed"] == 6


def test_vars_may_use_vars_and_fields() -> None:
    spec = load(BASE, ["vars={rates: {low: 1e-4}, lr: '${vars.rates.low}', seed: 2}"])

    assert net(spec)["optimizer"]["peak_lr"] == 1e-4


def test_the_environment_comes_after_vars_and_reads_as_yaml() -> None:
    spec = load(BASE, ["vars.seed=${env:VITPIPE_SEED}"], env={"VITPIPE_SEED": "7"})

    assert net(spec)["seed"] == 7


def test_what_comes_from_the_environment_is_not_looked_into_again() -> None:
    with pytest.raises(Exception, match=r"has no `foreach` around it"):
        load(BASE, ["vars.seed=${env:VITPIPE_SEED}"], env={"VITPIPE_SEED": "${each.x}"})


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "mine.yaml").write_text(
        "extends: ../base.yaml\nname: mine\nnodes: {net: {config: {seed: 9, optimizer: {betas: [0.8, 0.9]}}}}\n"
    )

    spec = load(tmp_path / "deeper" / "mine.yaml", ["vars.lr=0.5"])

    optimizer = net(spec)["optimizer"]
    assert (spec.name, net(spec)["seed"]) == ("mine", 9)
    assert (optimizer["peak_lr"], optimizer["betas"]) == (0.5, [0.8, 0.9])


def test_a_problem_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE.replace("batch_images", "batch"))
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\n")

    with pytest.raises(Exception, match=r"base\.yaml:12:7: nodes\.net\.config\.batch: unknown key"):
        load(tmp_path / "mine.yaml")


def test_relative_places_become_absolute_where_the_command_is_typed(tmp_path: Path) -> None:
    folder = BASE.replace("{kind: digits}", "{kind: folder, root: ./images}")

    spec = load(folder, folder=tmp_path)

    assert spec.store == f"file://{tmp_path}/runs"
    assert spec.uri == f"file://{tmp_path}/runs/run"
    assert spec.graph.nodes["data"].config.source.root == f"{tmp_path}/images"
    assert load(spec.text, folder=Path("/elsewhere")).document == spec.document


@pytest.mark.parametrize(
    ("urls", "found"),
    [
        ("in/*.tar", ("{here}/in/*.tar",)),
        ("'in/a.tar::s3://bucket/x.tar::b.tar'", ("{here}/in/a.tar", "s3://bucket/x.tar", "{here}/b.tar")),
        ("[in/*.tar, 's3://bucket/x.tar', /abs.tar]", ("{here}/in/*.tar", "s3://bucket/x.tar", "/abs.tar")),
    ],
)
def test_relative_patterns_become_absolute_alone_and_in_a_list(tmp_path: Path, urls: str, found: tuple[str]) -> None:
    spec = load(BASE.replace("{kind: digits}", f"{{kind: webdataset, urls: {urls}}}"), folder=tmp_path)

    source = spec.graph.nodes["data"].config.source
    assert source.patterns == tuple(one.format(here=tmp_path) for one in found)


@pytest.mark.parametrize(
    ("written", "absolute"),
    [
        ("file:///data/runs/", "file:///data/runs"),
        ("file://./a/../b", "file:///here/b"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_a_store_has_one_absolute_form(written: str, absolute: str) -> None:
    assert load(BASE, [f"store={written}"], folder=Path("/here")).store == absolute


def test_an_artifact_of_another_run_is_an_absolute_uri() -> None:
    spec = load(BASE, ["nodes.net.needs.shards=file://./runs/other/data"], folder=Path("/here"))

    assert spec.graph.nodes["net"].needs["shards"] == ("file:///here/runs/other/data",)
    assert spec.graph.uris() == ("file:///here/runs/other/data",)


def test_the_resolved_text_says_the_same_again() -> None:
    spec = load(BASE, ["nodes.net.config.optimizer.peak_lr=1e-7"])

    again = load(spec.text, folder=Path("/elsewhere"))

    assert again.document == spec.document and again.graph == spec.graph


YAML_WORDS = {
    "1e-3": 0.001, "1E3": 1000.0, ".5": 0.5, "-2": -2, "0x1F": 31, "0o17": 15, "007": 7, "true": True, "~": None,
    "": None, "yes": "yes", "on": "on", "NO": "NO", ".inf": ".inf", ".nan": ".nan", "1_000": "1_000", "1:30": "1:30",
    "2020-01-01": "2020-01-01", "1e999": "1e999", "'1'": "1", '"true"': "true", "6 epochs": "6 epochs", "0b1": "0b1",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), YAML_WORDS.items())
def test_a_word_means_what_yaml_1_2_says(text: str, value: object) -> None:
    found = plain(parse(f"a: {text}", "x", Problems("read")))["a"]

    assert (type(found), found) == (type(value), value)


DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12)
    | st.sampled_from(["1e-3", "null", "~", "0x1", "yes", "- a", "a: b", "#", "&a", "${", "1.", "007"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1, max_size=4), inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), DATA, max_size=4))
def test_resolved_text_reads_back_as_it_was(data: dict[str, object]) -> None:
    text = PipelineSpec("a", "file:///b", Graph({}), data).text

    assert plain(parse(text, "x", Problems("read"))) == (json.loads(json.dumps(data)) if data else {})
