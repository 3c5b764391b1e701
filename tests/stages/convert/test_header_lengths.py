"""Weights whose header has a length that ends in 0x80, as a pickle begins: written, read and used as any others."""

import json
import math
from pathlib import Path

import pytest
from converting import convert, fetched, wanted
from foreign_files import google_arrays, write_npz
from inprocess import make_context
from synthetic import shards
from tiny_checkpoint import commit_checkpoint
from tiny_vit import TINY, random_state, tiny

from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ForeignSource
from vitpipe.stages.convert.foreign.weights import glance
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.predict.opened_weights import open_weights
from vitpipe.stages.vit.native import load_native
from vitpipe.stages.vit.shapes import parameter_shapes

SETTINGS = tiny(variant=TINY.model_copy(update={"layers": 1, "width": 64}))


def test_what_convert_wrote_is_evaluated_predicted_with_and_converted_again(tmp_path: Path) -> None:
    state = random_state(SETTINGS)
    weights = convert(tmp_path, commit_checkpoint(tmp_path, SETTINGS, state), wanted("native"))
    folder = fetched(weights, tmp_path / "fetched")
    assert (folder / "native/model.safetensors").read_bytes()[:1] == b"\x80", "else this tests nothing"

    assert load_native(folder / "native")[1].keys() == state.keys()
    assert open_weights(folder, tmp_path / "a").labels
    ctx = make_context(tmp_path, "probe", EvaluateResources(batch_images=16))
    inputs = Inputs({"data": [shards(tmp_path)], "weights": [weights]})
    score = evaluate(EvaluateConfig(method="fewshot", shots=(5,), seeds=(0,)), inputs, ctx)
    assert isinstance(score, Score) and score.num_test == 30
    again = convert(tmp_path, weights, wanted("native"), "again")
    assert again.file("native/model.safetensors").sha256 == weights.file("native/model.safetensors").sha256


def test_a_headless_b16_with_the_format_in_its_metadata_is_looked_at(tmp_path: Path) -> None:
    shapes = sorted(parameter_shapes(ModelSettings(variant="B/16", image_px=224, classes=0)).items())
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        start, end = end, end + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)  # zeros that take no room
    assert len(header) % 256 == 0x80, "else this tests nothing"
    assert glance(ForeignSource(path=str(path))).settings.variant == "B/16"


@pytest.mark.parametrize("name", ["model.npz", "model.NPZ"])
def test_an_npz_is_one_in_capitals_too(tmp_path: Path, name: str) -> None:
    path = write_npz(tmp_path / "model.npz", google_arrays(tiny(), random_state(tiny()))).rename(tmp_path / name)
    assert glance(ForeignSource(path=str(path), heads=4)).format == "google"
