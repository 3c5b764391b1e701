"""Adding a format touches two files, its own and the list of names: a made-up one goes from a YAML to a proved file and
back. A part of it that is forgotten is an error of mypy.
"""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from converting import convert, fetched, wanted
from mypy import api
from pydantic import ValidationError
from tiny_checkpoint import commit_checkpoint
from tiny_vit import tiny

from vitpipe.stages.convert import config as config_module
from vitpipe.stages.convert.config import ConvertConfig, ForeignFormat, Format
from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.common import format_of, load, readings

PACKAGE = ConvertConfig.__module__.removesuffix(".config")
STAGES = PACKAGE.removesuffix("convert")
ROOT = Path(config_module.__file__).resolve().parents[2]
LISTED = Path(config_module.__file__).read_text().replace('"google_big_vision"]', '"google_big_vision", "made_up"]', 1)
MADE_UP = f'''
"""The format of a made-up library: our names behind `net.`, nothing beside them."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from {PACKAGE}.formats import common
from {PACKAGE}.formats.timm import LANDMARKS
from {PACKAGE}.links import Link, same
from {PACKAGE}.numbers import Arrays
from {STAGES}model_settings import ModelSettings
from {STAGES}vit.shapes import parameter_shapes


def _links(settings: ModelSettings) -> list[Link]:
    return [same(name, f"net.{{name}}") for name in parameter_shapes(settings)]


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    return common.Named("made_up", arrays) if "net.norm.weight" in arrays.shapes else None  # type: ignore[arg-type]


def answers(question: Any) -> Any:
    import torch
    from safetensors.torch import load_file

    from {STAGES}vit.build import build_model

    model = build_model(question.settings)
    (path,) = question.tensors
    model.load_state_dict({{name.removeprefix("net."): tensor for name, tensor in load_file(path).items()}})
    features = model.eval().features(torch.round((question.images + 1) * 127.5).to(torch.uint8))
    return "made_up 1.0", {{"pooled": features, "features": features, "logits": model.head(features)}}


FORMAT = common.WeightsFormat(
    name="made_up",  # type: ignore[arg-type]
    file=common.SAFETENSORS,
    contents=_links,
    limits=common.headless,
    unsaid=lambda settings: None,
    header=lambda about: about.signed({{"format": "pt"}}),
    companions=lambda about: {{"told.txt": about.activation.encode()}},
    pixels=common.HALF,
    consumer="{PACKAGE}.formats.made_up:answers",
    reading=common.Reading(
        claim=_claim,
        links=_links,
        landmarks=replace(
            LANDMARKS,
            **{{
                name: f"net.{{getattr(LANDMARKS, name)}}"
                for name in ("patch", "token", "positions", "block", "head", "representation", "pool")
            }},
        ),
        gelu="erf",
        norm_eps=1e-6,
        untabled=(),
        is_pixels_certain=True,
        companions=(),
        describe=lambda content, asked: None,
    ),
)
'''
CHILD = f"""
import importlib, sys
from pathlib import Path

here = Path(sys.argv[1])
for name in ("{PACKAGE}", "{PACKAGE}.formats"):  # the two files of `here` stand before those of the package
    package = importlib.import_module(name)
    package.__path__.insert(0, str(here / name.removeprefix("{PACKAGE}").lstrip(".")))

from vitpipe.pipeline.cli.main import invoke
from {STAGES}contract import Inputs
from {PACKAGE}.config import ConvertResources
from {PACKAGE}.run import run
from converting import convert, fetched, wanted
from inprocess import commit, make_context
from tiny_checkpoint import commit_checkpoint
from tiny_vit import tiny

assert invoke(["validate", str(here / "spec.yaml")]) == 0
assert invoke(["plan", str(here / "spec.yaml"), "--json"]) == 0
fetched(convert(here, commit_checkpoint(here, tiny()), wanted("native", "made_up")), here / "got")
read = wanted("native", source={{"path": str(here / "got" / "made_up"), "heads": 4}})
ctx = make_context(here, "back", ConvertResources())
fetched(commit(ctx, run(read, Inputs({{}}), ctx)), here / "back")
"""


def test_a_format_of_two_files_goes_from_a_yaml_to_a_proved_file_and_back(tmp_path: Path) -> None:
    source = fetched(convert(tmp_path / "before", commit_checkpoint(tmp_path / "before", tiny()), wanted("native")),
                     tmp_path / "native")  # fmt: skip
    (tmp_path / "config.py").write_text(LISTED)
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "made_up.py").write_text(MADE_UP)
    (tmp_path / "spec.yaml").write_text(
        f"version: 1\nname: run\nstore: file://{tmp_path}/runs\nnodes:\n  weights: {{stage: convert, config: "
        f"{{source: {{path: {source}/native}}, formats: [native, made_up, onnx]}}}}\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "got" / "parity.json").read_text())["made_up"]
    assert written["round_trip"] == "bit-identical" and written["error"] < 1e-5 and written["library"] == "made_up 1.0"
    assert (tmp_path / "got" / "made_up" / "told.txt").read_text() == "softmax"
    read = json.loads((tmp_path / "back" / "parity.json").read_text())["source"]
    assert read["format"] == "made_up" and read["error"] < 1e-5 and read["library"] == "made_up 1.0"
    files = [tmp_path / folder / "native" / "model.safetensors" for folder in ("got", "back")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_name_without_its_file_and_a_file_without_its_name_are_seen() -> None:
    with pytest.raises(ModuleNotFoundError, match="made_up"):
        format_of("made_up")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="formats"):
        ConvertConfig.model_validate({"formats": ["made_up"]})


def test_every_name_is_a_file_that_says_all() -> None:
    ours = ("native", "timm", "huggingface", "torchvision", "google", "google_big_vision", "onnx")
    assert tuple(name for name in get_args(Format) if name in ours) == ours  # in their order files are recognised
    for name in get_args(Format):
        format = format_of(name)
        assert format.name == name and (format.reading is None) == (name not in get_args(ForeignFormat))
        assert format.consumer is None or callable(load(format.consumer))
        writer = getattr(format.contents, "writer", None)
        assert writer is None or callable(load(writer))
    assert tuple(readings()) == get_args(ForeignFormat)


def test_a_forgotten_part_is_an_error_of_mypy(tmp_path: Path) -> None:
    kinds = (common.WeightsFormat, common.Reading)
    calls = ["landmarks.Landmarks()"]
    for kind in kinds:
        parts = [field.name for field in fields(kind)]
        for forgotten in parts:
            calls.append(f"common.{kind.__name__}({', '.join(f'{part}=it' for part in parts if part != forgotten)})")
    path = tmp_path / "forgetful.py"
    path.write_text(
        "\n".join(("from typing import Any", f"from {PACKAGE}.formats import common, landmarks", "it: Any", *calls))
    )
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    told, _, _ = api.run([str(path), *options])
    for line, call in enumerate(calls, start=4):
        assert f"forgetful.py:{line}: error: Missing " in told, (call, told)
    assert "Found" in told and f"Found {len(calls)} errors in 1 file" in told
