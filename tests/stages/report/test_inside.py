"""What the page shows of a model's inside: which weights, which pictures, and their captions."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from inprocess import make_context
from PIL import Image
from safetensors.torch import load_file
from synthetic import TINY, shards, weights
from test_report_page import FINETUNE, score
from tiny_steps import commit_steps, put_step
from tiny_vit import random_state, tiny

from vitpipe.infra.errors import Stopped, UsageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.report.captions import depth_chart, distance_words, position_words
from vitpipe.stages.report.config import ReportConfig, ReportResources, check_inputs
from vitpipe.stages.report.estimate import estimate
from vitpipe.stages.report.gallery import Distances, Positions
from vitpipe.stages.report.run import run
from vitpipe.stages.report.samples import one_each, read_image, spread
from vitpipe.stages.report.sheets import mosaic, pairs
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.inspect import attention_distance, patch_filters

SMALL = tiny(image_px=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("inside"), "colours")


def report(tmp_path, data, node="table", config=None, **inputs):
    """The page and the numbers of a report on one score and these inputs."""
    made = score(tmp_path, f"{node}-score", (0.9,), {**FINETUNE, "pretrained": False})
    ctx = make_context(tmp_path, node, ReportResources())
    given = {name: [one] for name, one in inputs.items()}
    run(config or ReportConfig(), Inputs({"scores": [made], "shards": [data], **given}), ctx)
    page = ctx.out.node.read(ctx.out.at("index.html")).decode()
    return page, json.loads(ctx.out.node.read(ctx.out.at("report.json")))["inside"]


def test_a_page_on_weights_has_all_four_pictures(tmp_path, data):
    given = weights(tmp_path)
    page, inside = report(tmp_path, data, weights=given)
    for words in ("Figure 7 left", "Figure 7 centre", "Figure 7 right", "Figures 6 and 14", "Seen inside <b>weights"):
        assert words in page
    assert inside["images"] == "30 images of the split test of colours" and inside["left_out"] == []
    assert page.count('class="head"') == TINY.sizes.layers * TINY.sizes.heads

    state = load_file(given.fetch("native/model.safetensors", tmp_path / "fetched"))
    _, share = patch_filters(state["patch_embed.proj.weight"])
    assert inside["filters"]["share"] == pytest.approx(float(share.sum()))
    model = build_model(TINY.model_copy(update={"classes": 5})).eval()
    model.load_state_dict(state)
    images = np.stack([read_image(data, one) for one in spread(data, "test", 128)])
    wanted = attention_distance(model, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    np.testing.assert_allclose(inside["distances"]["px_LH"], wanted, atol=1e-6)


@pytest.mark.parametrize(("step", "seed"), [(None, 5), (3, 3)])
def test_a_checkpoint_shows_any_step_that_is_there(tmp_path, data, step, seed):
    put_step(tmp_path, SMALL, "a1", 3, seed=3)
    backbone = commit_steps(*put_step(tmp_path, SMALL, "a2", 5, seed=5), SMALL, 5)
    page, inside = report(tmp_path, data, config=ReportConfig(step=step), checkpoint=backbone)
    assert inside["source"] == f"net at step {step or 5}" and f"net at step {step or 5}" in page
    _, share = patch_filters(random_state(SMALL, seed)["patch_embed.proj.weight"])
    assert inside["filters"]["share"] == pytest.approx(float(share.sum()))
    _, other = patch_filters(random_state(SMALL, 8 - seed)["patch_embed.proj.weight"])
    assert inside["filters"]["share"] != pytest.approx(float(other.sum())), "steps can be told apart"


def test_a_step_goes_before_weights_and_one_that_is_not_there_is_named(tmp_path, data):
    backbone = commit_steps(*put_step(tmp_path, SMALL, "a2", 5, seed=5), SMALL, 5)
    given = weights(tmp_path)
    _, inside = report(tmp_path, data, "both", checkpoint=backbone, weights=given)
    assert inside["source"] == "weights"
    _, inside = report(tmp_path, data, "step", ReportConfig(step=5), checkpoint=backbone, weights=given)
    assert inside["source"] == "net at step 5"
    with pytest.raises(UsageError, match="steps 5 are there"):
        report(tmp_path, data, "wrong", ReportConfig(step=4), checkpoint=backbone)
    assert check_inputs(ReportConfig(step=4), frozenset({"scores"}))
    assert not check_inputs(ReportConfig(step=4), frozenset({"scores", "checkpoint"}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"position": "relative"}, "Positions are left out: relative positions are embeddings of offsets"),
        ({"position": "none", "pool": "gap"}, "Positions are left out: the model has no position embedding."),
        ({"variant": "R50x1", "image_px": 32}, "Attention is left out: a ResNet has no attention."),
        ({"variant": "R+Ti/16", "image_px": 64}, "Filters are left out: a hybrid cuts its patches"),
    ],
)
def test_what_has_no_meaning_is_left_out_with_a_sentence(tmp_path, data, changes, sentence):
    settings = ModelSettings.model_validate({**SMALL.model_dump(), **changes})
    backbone = commit_steps(*put_step(tmp_path, settings, "a2", 5, seed=5), settings, 5)
    config = ReportConfig(attention_images=2, rollout_images=1)
    page, inside = report(tmp_path, data, config=config, checkpoint=backbone)
    assert sentence in page and any(sentence in one for one in inside["left_out"])
    assert ("Figure 7 right" in page) == (settings.family != "resnet")


def test_no_images_means_no_attention(tmp_path, data):
    page, inside = report(tmp_path, data, config=ReportConfig(attention_images=0), weights=weights(tmp_path))
    assert inside["distances"] is None and "the config asks for no images" in page


def test_looking_ends_when_asked(tmp_path, data):
    made, given = score(tmp_path, "one", (0.9,), {**FINETUNE, "pretrained": True}), weights(tmp_path)
    ctx = make_context(tmp_path, "table", ReportResources())
    ctx.fence.stop("preempted")
    with pytest.raises(Stopped, match="after 0 of 30 images: preempted"):
        run(ReportConfig(), Inputs({"scores": [made], "shards": [data], "weights": [given]}), ctx)


def test_plain_rollout_is_another_picture(tmp_path, data):
    given = weights(tmp_path)
    _, residual = report(tmp_path, data, "residual", weights=given)
    _, plain = report(tmp_path, data, "plain", ReportConfig(rollout="plain"), weights=given)
    assert plain["rollout"]["held"] != residual["rollout"]["held"]


def test_images_are_spread_over_the_split_and_of_different_classes(data):
    ten = spread(data, "test", 10)
    assert [one.place for one in ten] == list(range(0, 30, 3)), "every third of 30"
    assert len(spread(data, "test", 128)) == 30
    every = spread(data, "test", 30)
    assert [one.labels for one in one_each(every, 3)] == [(0,), (1,), (2,)]
    assert [one.place for one in one_each(every, 5)] == [0, 1, 2, 3, 4], "more than there are classes"


def test_a_map_lights_its_image():
    image = np.full((4, 4, 3), 200, np.uint8)
    even = pairs([image], [np.full((2, 2), 0.25)])
    side = even.shape[0]
    assert (even[:, :side] == even[:, -side:]).all(), "an even map leaves the image as it is"
    left = pairs([image], [np.array([[1.0, 0.0], [1.0, 0.0]])])[:, -side:, 0].astype(int)
    assert left[side // 2, side // 10] > 190 and left[side // 2, -side // 10] < 10


def test_tiles_stand_in_rows():
    tiles = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3) * 40
    sheet = mosaic(tiles, 3)
    colours = {int(value) for value in sheet[sheet[..., 3] == 255][:, 0]}
    assert colours == {0, 40, 80, 120, 160, 200}


def test_words_state_what_was_measured():
    distances = Distances(px_LH=((4.0, 12.0), (9.0, 11.0)), even_px=10.0, num_images=128)
    words = distance_words(distances).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "from 4.0 px to 12.0 px, in the last from 9.0 px to 11.0 px" in words and "evenly would reach 10.0 px" in words
    )
    chart = depth_chart(distances)
    places = re.findall(r'cx="([\d.]+)%" cy="([\d.]+)%"', str(chart.svg))
    assert [float(x) for x, _ in places] == [25, 25, 75, 75]
    assert [chart.y.high * (1 - float(y) / 100) for _, y in places] == pytest.approx([4, 12, 9, 11], abs=0.01)
    positions = Positions(uri="", grid=4, fixed=True, lowest=-0.5, beside=0.5, in_line=0.25, elsewhere=-0.125)
    assert "side by side 0.50, further apart in one row or column 0.25, elsewhere −0.12" in position_words(positions)
    assert "never trained" in position_words(positions)


def test_the_plan_counts_what_the_model_costs():
    model = {"variant": "L/16", "image_px": 224, "classes": 1000}
    known, resources = Known(), ReportResources()
    small = estimate(ReportConfig(), resources, {}, known)
    large = estimate(ReportConfig(), resources, {"weights": [Estimate(model=model)]}, known)
    assert large.images == 136 and large.flops == pytest.approx(136 * 123.1e9, rel=0.01)  # forward, at 224
    assert large.hours > 10 * small.hours
    without = estimate(ReportConfig(attention_images=0), resources, {"weights": [Estimate(model=model)]}, known)
    assert without == small


def test_pictures_decode(tmp_path, data):
    page, _ = report(tmp_path, data, weights=weights(tmp_path))
    found = [base64.b64decode(one) for one in re.findall(r"data:image/\w+;base64,([^\"]+)", page)]
    assert len(found) >= 3 and all(Image.open(io.BytesIO(one)).size > (50, 10) for one in found[:3])
