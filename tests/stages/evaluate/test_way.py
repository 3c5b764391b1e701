"""How an evaluation brings images to the model's size: as asked, as the fine-tuning did, or as the authors do."""

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.evaluate.config import EvaluateConfig
from vitpipe.stages.evaluate.way import way_of
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import EvalWay

MODEL = ModelSettings(variant="Ti/16", image_px=384, classes=2)
PROTOCOL = {"method": "finetune", "eval_resize": "resmall_crop", "crop_px": 448, "antialias": True, "image_px": 384}
TUNED = Score(benchmark="b", metric="top1", value=1, per_seed=(1,), num_test=1, model=MODEL, protocol=PROTOCOL)
MADE = Weights(formats=("native",), model=MODEL)


class Notes(list):
    def emit(self, kind, text):
        self.append(text)


def way(weights, notes=None, **config):
    return way_of(EvaluateConfig(**config), weights, Notes() if notes is None else notes)


@pytest.mark.parametrize("method", ["classify", "real"])
def test_a_fine_tunings_head_is_tested_as_that_tested_it(method):
    notes = Notes()
    assert way(TUNED, notes, method=method) == EvalWay("resmall_crop", 448, True) and not notes
    assert way(TUNED, method=method, image_px=192) == EvalWay("resmall_crop", 224, True)
    assert way(TUNED, method=method, antialias=False) == EvalWay("resmall_crop", 448, False)
    other = way(TUNED, notes, method=method, eval_resize="squash")
    assert other == EvalWay("squash", None, False)
    assert notes == ["the weights were tested by resmall_crop, this by squash; leave eval_resize and antialias out to "
                     "take theirs"]  # fmt: skip


def test_all_else_is_the_authors():
    for weights, method in ((TUNED, "fewshot"), (MADE, "classify"), (MADE, "fewshot"), (None, "knn")):
        notes = Notes()
        assert way(weights, notes, method=method) == EvalWay("resize_crop", None, False) and not notes
    assert way(MADE, method="fewshot", eval_resize="resize_small", antialias=True) == EvalWay("resmall_crop")
    assert way(MADE, method="classify", eval_resize="area_small") == EvalWay("area_small", None, False)


def test_two_ways_have_two_names():
    ways = [EvalWay("squash"), EvalWay("squash", antialias=False), EvalWay("resize_crop"), EvalWay("resize_crop", 30)]
    assert len({str(one.facts()) for one in ways}) == len(ways)
    assert EvalWay("squash").facts() == {"eval_resize": "squash"}, "the name that earlier features have"


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="Cannot evaluate with eval_resize weights: they do not say"):
        way(MADE, method="fewshot", eval_resize="weights")
    for fit in ("area_small", "weights"):
        with pytest.raises(ValueError, match=f"eval_resize {fit} has a filter of its own: leave antialias out"):
            EvaluateConfig(method="fewshot", eval_resize=fit, antialias=True)
    with pytest.raises(ValueError, match="area_small"):
        EvaluateConfig(method="fewshot", eval_resize="area")
