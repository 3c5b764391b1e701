"""A remedy names the line where the field that it speaks of is written."""

from pathlib import Path

import pytest

from vitpipe.infra.errors import UsageError, VitpipeError
from vitpipe.pipeline.cli.main import invoke
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.spec.text.written import located

YAML = """version: 1
name: x
store: file://./runs
nodes:
  data:
    stage: ingest
    config:
      source:
        kind: folder
        root: ./nowhere
      images_per_shard: 5
"""
WRITTEN = {"source.root": "mine.yaml:10", "limit": "mine.yaml:11", "a.kind": "mine.yaml:1", "b.kind": "mine.yaml:2"}


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("correct `root`, or mount it", "correct `root` (mine.yaml:10), or mount it"),
        ("raise `limit`, or name `source.root`", "raise `limit` (mine.yaml:11), or name `source.root` (mine.yaml:10)"),
        ("set `root: /data/a`, whose folders", "set `root: /data/a` (mine.yaml:10), whose folders"),
        ("set `splits: folders`", "set `splits: folders`"),
        ("give `oot`", "give `oot`"),
        ("set `kind`", "set `kind`"),
        ("run it under another `limit`", "run it under another `limit`"),
        ("see `vitpipe doctor`", "see `vitpipe doctor`"),
    ],
)
def test_fields_of_a_remedy_get_their_place(do: str, said: str) -> None:
    error = UsageError("ingest /x", "no such folder", do)
    told = located(error, WRITTEN)
    assert (told.do, told.asked, told.found, type(told)) == (said, error.asked, error.found, UsageError)
    assert located(told, WRITTEN) is told, "it is said once"


def test_a_plan_and_a_run_name_the_line_of_a_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(YAML)
    wanted = f"Cannot ingest {tmp_path}/nowhere: no such folder. Correct `root` (mine.yaml:10)"
    assert invoke(["plan", "mine.yaml"]) == 0 and wanted in capsys.readouterr().out
    assert invoke(["run", "mine.yaml"]) == 2 and capsys.readouterr().err.startswith(wanted)
    override = "nodes.data.config.source.root=/none"
    assert invoke(["run", "mine.yaml", override]) == 2
    assert "Correct `root` (override nodes.data.config.source.root)" in capsys.readouterr().err


def test_a_base_is_named_where_it_has_the_field_and_places_decide_nothing(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(YAML)
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nnodes: {data: {config: {images_per_shard: 7}}}\n")
    node = load(tmp_path / "mine.yaml").graph.nodes["data"]
    assert node.written["source.root"] == f"{tmp_path}/base.yaml:10"
    assert node.written["images_per_shard"] == f"{tmp_path}/mine.yaml:2"
    same = load(YAML.replace("shard: 5", "shard: 7"), folder=tmp_path).graph.nodes["data"]
    assert node.written != same.written and load(tmp_path / "mine.yaml", folder=tmp_path).graph.nodes["data"] == same


def test_an_error_without_a_remedy_stays() -> None:
    assert str(located(VitpipeError("x it", "`root` is odd"), WRITTEN)) == "Cannot x it: `root` is odd."
