"""The page of one's own single score: how sure it is, what no skill reaches, mistakes in pictures, a card to load."""

import base64
import io
import json
import re

import numpy as np
import pytest
from huggingface_hub import ModelCard
from inprocess import commit, make_context
from PIL import Image
from synthetic import shards, weights
from test_report_page import FINETUNE, score

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.report.certainty import interval, levels, wilson
from vitpipe.stages.report.charts import score_axis
from vitpipe.stages.report.config import ReportConfig, ReportResources
from vitpipe.stages.report.downloads import downloads, latex_table
from vitpipe.stages.report.paper_comparison import grids
from vitpipe.stages.report.pretraining import finetuning_curves
from vitpipe.stages.report.results import rows
from vitpipe.stages.report.run import run
from vitpipe.stages.report.samples import read_image, spread
from vitpipe.stages.report.wording import class_label
from vitpipe.stages.report.wrong_images import draw_wrong, wrong_tasks
from vitpipe.stages.training.measure.wrong import KEPT, Wrong, surest


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    data = shards(path, "mine", ("class 0", "class 1", "class 2"), {"test": 29})
    given = weights(path, "head")
    ctx = make_context(path, "accuracy", EvaluateResources())
    used = {"data": [data], "weights": [given]}
    made = evaluate(EvaluateConfig(method="classify"), Inputs(used), ctx)
    return path, data, commit(ctx, made, stage="evaluate", inputs=used)


def page_of(path, node, *scores):
    ctx = make_context(path, node, ReportResources())
    report = run(ReportConfig(attention_images=0), Inputs({"scores": scores}), ctx)
    return {file.path: ctx.out.node.read(file.at).decode() for file in report.files}


def test_the_interval_is_wilsons():
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_single_score_says_how_sure_it_is_and_what_no_skill_reaches(own):
    path, _, made = own
    (row,) = rows([made])
    low, high = interval(row)
    page = page_of(path, "page", made)["index.html"]
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\N{NO-BREAK SPACE}", " ")
    assert f"{100 * low:.1f} to {100 * high:.1f} %, from 29 test images (Wilson)" in words
    assert "Chance 33.3 %, always the most frequent class 34.5 %" in words, "10 of 29"
    assert score_axis([row]).low == 0 and score_axis([row]).high >= 100 * high
    assert "A ring is one seed" not in page and 'class="seed"' not in page and page.count('class="level"') == 2


def test_several_seeds_have_rings_and_no_interval(own):
    path, _, _ = own
    several = score(path, "several", (0.7, 0.8), FINETUNE | {"pretrained": False})
    page = page_of(path, "seeds", several)["index.html"]
    assert "A ring is one seed" in page and "Wilson" not in page and interval(rows([several])[0]) is None
    assert levels([several], {}) == {}, "no data at hand, no level"


def test_mistakes_are_the_images_that_were_named_wrongly(own):
    _, data, made = own
    (task,) = wrong_tasks([made], {made.uri: data}, {made.uri: "accuracy"}, {})
    every = spread(data, "test", 29)
    for number, actual, given, confidence in task.named:
        assert actual == f"class {every[number].labels[0]}" != given and 0 < confidence <= 1
    wrong = round((1 - made.value) * 29)
    assert len(made.read_json("score.json")["wrong"]) == min(KEPT, wrong) > 0
    drawn = draw_wrong(task)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.images[0].uri.split(",")[1]))).convert("RGB"))
    np.testing.assert_array_equal(shown, read_image(data, every[task.named[0][0]]))


def test_a_mistake_whose_image_was_altered_is_refused(tmp_path, own):
    data = shards(tmp_path, "altered", counts={"test": 6})
    _, _, made = own
    (task,) = wrong_tasks([made], {made.uri: data}, {}, {})
    at = data.file("test-000000.tar").at
    content = bytearray(data.store().read(at))
    (sample,) = spread(data, "test", 1)
    content[sample.index.offset[0] + 40] ^= 1
    data.store().write(at, bytes(content))
    first = task.named[0]
    with pytest.raises(IntegrityError):
        draw_wrong(type(task)(task.node, task.benchmark, data, "test", ((0, *first[1:]),)))


def test_the_surest_mistakes_are_kept():
    found = [Wrong(number, 0, 1, number % 30 / 30) for number in range(60)]
    kept = surest(found)
    assert len(kept) == KEPT and [one.image for one in kept[:3]] == [29, 59, 28]


def test_the_card_says_how_to_load(own):
    path, _, made = own
    card = ModelCard(page_of(path, "card", made)["README.md"])
    assert re.search(r'vitpipe\.load\(".*/head"\)\.predict\("photo\.jpg"\)', card.text)
    assert "16 x 16 px" in card.text and "not given: add one" in card.text and "timm.create_model" not in card.text
    assert "the paper's" not in card.text


def test_tables_can_be_saved_from_the_page(own):
    _, _, made = own
    table = rows([made], {made.uri: "a_b & 50 %"})
    csv, latex = (base64.b64decode(address.split(",")[1]) for _, _, address in downloads(table, b"a,b\n1,2\n"))
    assert csv == b"a,b\n1,2\n" and latex == latex_table(table)
    assert rb"a\_b \& 50 \% & own head" in latex and latex.count(rb"\\") == 2
    assert downloads([], b"") == []


def test_a_set_of_ones_own_under_a_papers_name_is_not_beside_the_paper(own):
    path, _, _ = own
    model = weights(path, "ten", classes=10).model
    real = score(path, "real", (0.5,), FINETUNE | {"pretrained": True}, model=model)
    mine = score(path, "four", (0.5,), FINETUNE | {"pretrained": True}, model=model.model_copy(update={"classes": 4}))
    assert grids(rows([real]), {}) and not grids(rows([mine]), {})


@pytest.mark.parametrize(
    ("name", "shown"),
    [("U+0416 CYRILLIC CAPITAL LETTER ZHE", "Ж"), ("U+1D538 A", "𝔸"), ("U+200B ZERO WIDTH SPACE", None),
     ("U+0020 SPACE", None), ("U+41", None), ("cat", None)],
)  # fmt: skip
def test_a_glyph_is_shown_as_itself(name, shown):
    assert class_label(name) == (shown or name)


def test_a_fine_tuning_has_the_mean_curve_of_its_seeds(own):
    path, _, _ = own
    ctx = make_context(path, "curves", None)
    losses = {0: [2.0, 1.0, 0.5], 1: [1.0, 1.0, 0.0]}
    names = [f"trials/test-lr0.01-seed{seed}.json" for seed in losses] + ["trials/sweep-lr0.01-seed0.json"]
    files = tuple(
        ctx.out.put(name, json.dumps({"losses": one}).encode())
        for name, one in zip(names, [*losses.values(), [9.0, 9.0]], strict=True)
    )
    made = Score(benchmark="mine", metric="top1", value=0.5, per_seed=(0.4, 0.6), num_test=10, files=files)
    (curve,) = finetuning_curves([commit(ctx, made, stage="finetune")], {})
    assert curve.numbers == ((1, 1.5), (2, 1.0), (3, 0.25)) and "mean of 2 seeds" in curve.title
    assert finetuning_curves([own[2]], {}) == []
