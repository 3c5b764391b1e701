"""What editors and beginners are given agrees with what `validate` accepts."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from small_disk import small_disk

from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.pipeline.cli.starters import DEFAULT, FOLDER, presets, write_starter
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.spec.schema import json_schema
from vitpipe.pipeline.spec.text.problems import Problems
from vitpipe.pipeline.spec.text.yaml_source import parse, plain

CONFIGS = sorted(Path("configs").rglob("*.yaml")) + sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found = json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def mistakes(schema: dict[str, Any], text: str) -> list[str]:
    document = plain(parse(text, "x", Problems("read")))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def test_each_preset_is_among_what_is_checked():
    assert DEFAULT in presets()
    assert {*presets()} == {path.stem for path in CONFIGS if path.parent == FOLDER}


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_shipped_yaml_is_valid_and_says_what_it_is_for(path: Path, schema: dict[str, Any]) -> None:
    assert load(path).graph.nodes
    assert mistakes(schema, path.read_text()) == []
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("kind: cosine", "kind: cosin"),
        ("batch_images: 256", "batch_images: many"),
        ("workers: 1", "worker: 1"),
        ("stage: convert", "stage: converts"),
        ("{checkpoint: backbone}", "{check: backbone}"),
        ("image_px: 224, ", "image_pixels: 224, "),
    ],
)
def test_an_editor_sees_a_mistake(schema: dict[str, Any], written: str, instead: str) -> None:
    text = (FOLDER / "folder.yaml").read_text()
    assert written in text

    assert mistakes(schema, text.replace(written, instead))


def test_a_reference_may_stand_for_any_value(schema: dict[str, Any]) -> None:
    text = (FOLDER / "folder.yaml").read_text()

    assert mistakes(schema, text.replace("batch_images: 256", 'batch_images: "${vars.batch}"')) == []


def test_every_field_says_what_it_means(schema: dict[str, Any]) -> None:
    silent = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, inner in definition.get("properties", {}).items()
        if name[0].isupper() and field != "kind" and "description" not in inner
    ]

    assert silent == []
    assert len(json.dumps(schema)) < 300_000


def test_an_editor_sees_a_mistake_in_a_file_that_extends(schema: dict[str, Any]) -> None:
    part = "extends: base.yaml\nnodes: {backbone: {config: {total: 9 epochs}}}\n"
    assert mistakes(schema, part) == []
    assert mistakes(schema, part.replace("config:", "conf:"))
    assert mistakes(schema, part.replace("{config:", "{stage: pretrain, config:")), "a whole node, with what it needs"
    assert mistakes(schema, part.replace("extends: base.yaml", "version: 1\nname: x\nstore: file://./x"))


@pytest.mark.parametrize("preset", presets())
def test_a_starter_is_written_once(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"

    write_starter(path, preset)

    assert load(path).graph.nodes
    with pytest.raises(UsageError, match="something of that name is there"):
        write_starter(path, preset)


def test_an_unknown_preset_or_place_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are benchmarks, compare, folder, small, transfer"):
        write_starter(tmp_path / "a.yaml", "fodler")
    with pytest.raises(UsageError, match="No such file"):
        write_starter(tmp_path / "nowhere" / "a.yaml")


def test_a_full_disk_is_named_and_keeps_no_part_of_a_starter(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", "1m") as full:
        full.fill()
        path = full.path / "mine.yaml"
        with pytest.raises(StorageError, match=r"write \S+/full/mine\.yaml: No space left.*Make room") as raised:
            write_starter(path)
        assert raised.value.code == 7 and not path.exists()
