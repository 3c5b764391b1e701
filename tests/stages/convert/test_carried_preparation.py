"""How an image gets to the model's size goes with the weights: into predict, into evaluate, into other formats."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import Earlier, fetched, wanted
from foreign_files import huggingface_folder
from inprocess import commit, make_context
from synthetic import shards

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.changes import look as look_again
from vitpipe.stages.convert.foreign.weights import glance
from vitpipe.stages.convert.run import run
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources, check_inputs
from vitpipe.stages.evaluate.frozen import description
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.evaluate.work_items import EvaluateTask
from vitpipe.stages.images.evaluate import fitted
from vitpipe.stages.images.prepare import prepare
from vitpipe.stages.predict.opened_weights import open_weights
from vitpipe.stages.preparation import EvalWay, Preparation
from vitpipe.stages.report.card import results_csv
from vitpipe.stages.report.results import rows
from vitpipe.stages.sighting import Sighted

WAY = Preparation(fit="resmall_crop", resize_px=36, interpolation="bicubic")
IMAGES = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32, "resample": 3}
PHOTO = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)


def imported(tmp_path: Path, images: dict[str, Any] | None, *formats: Any, **config: Any) -> Weights:
    huggingface_folder(tmp_path / "hf", layer_norm_eps=1e-6, **config)  # timm's own
    if images is not None:
        (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(images))
    ctx = make_context(tmp_path, "weights", ConvertResources())
    wish = wanted("native", *formats, source={"path": str(tmp_path / "hf")})
    done = commit(ctx, run(wish, Inputs({}), ctx))
    assert isinstance(done, Weights)
    return done


def test_weights_carry_it_and_predict_takes_it(tmp_path: Path) -> None:
    weights = imported(tmp_path, IMAGES, "timm", "huggingface", problem_type="multi_label_classification")
    assert Preparation.model_validate(weights.read_json("preparation.json")) == WAY
    model = open_weights(weights, tmp_path / "scratch")
    seen = model.preprocess(PHOTO).numpy().transpose(1, 2, 0)
    assert np.array_equal(seen, prepare(PHOTO, 32, WAY)) and not np.array_equal(
        seen, fitted(PHOTO, 32, EvalWay("squash"))
    )
    folder = fetched(weights, tmp_path / "got")
    assert open_weights(folder, tmp_path / "scratch").manner.way.fit == WAY
    for name in ("timm", "huggingface"):  # what is written says it to other libraries, which is read back
        back = glance(ForeignSource(path=str(folder / name))).preparation
        assert back is not None and back.model_copy(update={"centre": "down"}) == WAY
    for name in ("labels.json", "preparation.json"):
        shutil.copy(folder / name, folder / "native")
    again = glance(ForeignSource(path=str(folder / "native")))
    assert again.preparation == WAY and again.sigmoid and again.labels == model.labels
    (folder / "native" / "preparation.json").write_text('{"fit": "stretch"}')
    with pytest.raises(IntegrityError, match="no way of an image"):
        open_weights(folder, tmp_path / "scratch")


def test_where_nobody_says_it_nothing_is_carried(tmp_path: Path) -> None:
    weights = imported(tmp_path, None, "huggingface")
    assert not weights.has("preparation.json")
    assert open_weights(weights, tmp_path / "scratch").manner.way.fit == "squash"
    written = weights.read_json("huggingface/preprocessor_config.json")
    assert written["size"] == {"height": 32, "width": 32} and "crop_size" not in written


def test_evaluate_is_offered_it_and_says_when_it_takes_another(tmp_path: Path) -> None:
    weights, data = imported(tmp_path, IMAGES), shards(tmp_path)
    scores: dict[str, Any] = {}
    notes = {}
    for way in ("squash", "weights"):
        ctx = make_context(tmp_path, f"probe-{way}", EvaluateResources(batch_images=16), run=f"probe-{way}")
        config = EvaluateConfig(method="fewshot", shots=(2,), seeds=(0,), eval_resize=way)
        scores[way] = commit(ctx, evaluate(config, Inputs({"data": (data,), "weights": (weights,)}), ctx))
        notes[way] = " ".join(ctx.events.of("note"))
    assert "eval_resize: weights takes theirs" in notes["squash"] and "theirs" not in notes["weights"]
    assert scores["weights"].protocol["preparation"] == WAY.model_dump()
    table = results_csv(rows([scores["weights"], scores["squash"]]), "s3://b/r", []).decode()
    ways = [(line["crop_pct"], line["interpolation"]) for line in csv.DictReader(io.StringIO(table))]
    assert ways == [("0.889", "bicubic"), ("1.0", "bilinear")]
    assert "preparation" not in scores["squash"].protocol
    probe = EvaluateConfig(method="fewshot")
    told = [
        description(EvaluateTask(probe, data, weights, 1, 1, ctx.task, way), "test", 0)
        for way in (EvalWay(WAY), EvalWay("squash"))
    ]
    assert told[0]["preparation"]["resize_px"] == 36 and "preparation" not in told[1]
    assert check_inputs(EvaluateConfig(method="fewshot", eval_resize="weights", features="raw_pixels", image_px=8), ())


def test_evaluate_refuses_to_guess_it(tmp_path: Path) -> None:
    weights, data = imported(tmp_path, None), shards(tmp_path)
    ctx = make_context(tmp_path, "probe", EvaluateResources())
    with pytest.raises(UsageError, match="do not say how their images get to their size"):
        config = EvaluateConfig(method="fewshot", shots=(2,), eval_resize="weights")
        evaluate(config, Inputs({"data": (data,), "weights": (weights,)}), ctx)


def test_at_another_size_it_keeps_its_share() -> None:
    assert WAY.at(64, 32).resize_px == 72 and Preparation().at(64, 32) == Preparation()


def test_a_strip_stays_small() -> None:
    assert prepare(np.zeros((1, 20_000, 3), np.uint8), 32, WAY).shape == (32, 32, 3)


def test_what_an_earlier_version_misread_is_other_data_now(tmp_path: Path) -> None:
    weights = imported(tmp_path, IMAGES | {"rescale_factor": 0.01}, problem_type="multi_label_classification")

    def seen(was: Any, **resources: bool) -> Sighted:
        config = wanted("native", source={"path": str(tmp_path / "hf")})
        return look_again(config, ConvertResources(**resources), was, {}, False)

    assert seen(weights).is_same
    # what it read as another function is other weights: the node drifts
    misread = Earlier(weights, mean=[0.5] * 3, std=[0.5] * 3)
    assert (
        "was read as mean [0.5, 0.5, 0.5]" in seen(misread).changes[0] and not seen(misread, trust_source=True).changes
    )
    # what it did not carry is said, and is no result that another run adopts
    uncarried = seen(Earlier(weights, preparation=None))
    assert not uncarried.changes and not uncarried.is_same
    said = "prepares images by resmall_crop from 36 px, bicubic and learned each class by itself, which an earlier"
    assert said in uncarried.note
    # what it took, and what may not be taken
    path = tmp_path / "hf" / "preprocessor_config.json"
    path.write_text(json.dumps(IMAGES | {"do_pad": True}))
    files = [file | ({"bytes": path.stat().st_size} if file["path"] == path.name else {})
             for file in weights.read_json("source.json")["files"]]  # fmt: skip
    refused = seen(Earlier(weights, files=files, marks={}))
    assert "was taken and would be refused now" in refused.changes[0] and "do_pad true" in refused.changes[0]
