"""How a pretraining went, on the page: curves of what was measured, and where the time went."""

from pathlib import Path

import pytest
from inprocess import make_context
from synthetic import checkpoint

from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.model_settings import Rope
from vitpipe.stages.report.config import ReportConfig, ReportResources
from vitpipe.stages.report.overview import pretraining
from vitpipe.stages.report.pretraining import curves, spent
from vitpipe.stages.report.run import run

EVALUATIONS = [
    {
        "step": step,
        "samples_seen": 1,
        "loss": 3 - step / 100,
        "accuracy": step / 400,
        "fewshot": {"pets": {"5": 0.4}},
        "watch": {"imagenet-v2": step / 800},
    }
    for step in (50, 100, 200)
]
TIMES = {"goodput": 0.8, "seconds_productive": 80.0, "seconds_startup": 12.0, "seconds_restarts": 8.0,
         "seconds_skipped": 0.0}  # fmt: skip


def test_measurements_are_drawn_beside_the_training_loss(tmp_path: Path) -> None:
    drawn = {one.title: one for one in curves(checkpoint(tmp_path, evaluations=EVALUATIONS))}
    assert list(drawn) == ["Training loss", "Learning rate", "Gradient norm before clipping", "Held-out loss",
                           "Held-out accuracy", "Accuracy on imagenet-v2", "5-shot accuracy on pets"]  # fmt: skip
    assert (drawn["Held-out loss"].first, drawn["Held-out loss"].last) == (2.5, 1.0)
    assert (drawn["Accuracy on imagenet-v2"].last, drawn["Accuracy on imagenet-v2"].unit) == (25.0, "%")
    assert (drawn["Held-out accuracy"].last, drawn["Held-out accuracy"].unit) == (50.0, "%")
    assert "Held-out loss" not in {one.title for one in curves(checkpoint(tmp_path, "without"))}


def test_time_is_told_by_cause(tmp_path: Path) -> None:
    found = spent(checkpoint(tmp_path, metrics=TIMES))
    assert [(one.cause, one.seconds) for one in found] == [("productive", 80.0), ("startup", 12.0), ("restarts", 8.0)]
    assert found[2].share == pytest.approx(0.08)
    assert spent(checkpoint(tmp_path, "older")) == []


def test_the_page_shows_both(tmp_path: Path) -> None:
    backbone = checkpoint(tmp_path, evaluations=EVALUATIONS, metrics=TIMES)
    ctx = make_context(tmp_path, "table", ReportResources())
    score = Score(benchmark="cifar10", metric="top1", value=0.9, per_seed=(0.9,), num_test=10,
                  protocol={"method": "finetune", "pretrained": True})  # fmt: skip
    made = run(ReportConfig(), Inputs({"scores": [score], "checkpoint": [backbone]}), ctx)
    page = ctx.out.node.read(made.file("index.html").at).decode()
    for part in ("Goodput 80.0 %", "from each start to its first step", "12 s", "Held-out accuracy"):
        assert part in page


def test_a_model_is_described_with_its_later_parts(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, steps=2)
    assert "with 2 heads, 4 px patches" in pretraining("plain", made)
    later = made.model.model_copy(update={"registers": 4, "qk_norm": True, "rope": Rope(kind="eva02")})
    told = pretraining("later", made.model_copy(update={"model": later}))
    assert "with 2 heads, registers 4, qk norm, rope eva02, 4 px patches" in told
