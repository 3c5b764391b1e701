"""The tables of names: every native tensor has its place in each format, and comes back from there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tiny_vit import random_arrays, tiny

from vitpipe.stages.convert.formats.google import google_links
from vitpipe.stages.convert.formats.google_big_vision import google_big_vision_links
from vitpipe.stages.convert.formats.huggingface import huggingface_links
from vitpipe.stages.convert.formats.timm import timm_architecture, timm_arguments, timm_links
from vitpipe.stages.convert.formats.torchvision import torchvision_links
from vitpipe.stages.convert.links import Link, foreign_shapes, inward, outward
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import VARIANTS
from vitpipe.stages.vit.shapes import parameter_shapes

Table = Callable[[ModelSettings], list[Link]]
CASES: list[tuple[Table, dict[str, Any]]] = [
    (huggingface_links, {}),
    (torchvision_links, {"representation": 7}),
    (google_links, {"representation": "width"}),
    (google_links, {"pool": "gap"}),
    (google_big_vision_links, {"representation": 7}),
    (google_big_vision_links, {"pool": "map"}),
]


@pytest.mark.parametrize(("table", "changes"), CASES)
def test_there_and_back_is_the_same(table: Table, changes: dict[str, Any]) -> None:
    settings = tiny(**changes)
    native, links = random_arrays(settings), table(settings)
    foreign = {made.name: made.make(*(native[name] for name in made.sources)) for made in outward(links)}
    back = {made.name: made.make(*(foreign[name] for name in made.sources)) for made in inward(links)}
    assert {name: array.shape for name, array in foreign.items()} == foreign_shapes(links, parameter_shapes(settings))
    assert set(back) == set(native)
    rounded = {name for link in links if not link.exact for name in link.native}
    assert all(np.array_equal(back[name], native[name]) for name in native if name not in rounded)
    for name in rounded - {"cls_token", "pos_embed"}:  # folded in double, rounded twice
        np.testing.assert_allclose(back[name], native[name], atol=1e-6, rtol=1e-6)


def test_big_vision_keeps_the_sum_of_token_and_position() -> None:
    settings = tiny()
    native, links = random_arrays(settings), google_big_vision_links(settings)
    token, table = links[0].to_foreign(native["cls_token"], native["pos_embed"])
    assert links[0].to_native is not None
    back_token, back_table = links[0].to_native(token, table)
    assert np.array_equal(back_token + back_table[:, :1], native["cls_token"] + native["pos_embed"][:, :1])
    assert np.array_equal(back_table[:, 1:], native["pos_embed"][:, 1:])


@pytest.mark.parametrize("position", ["learned2d", "sincos2d", "none"])
@pytest.mark.parametrize("table", [huggingface_links, google_links, google_big_vision_links])
def test_other_positions_go_out_as_one_table(table: Table, position: str) -> None:
    settings = tiny(position=position)
    links = table(settings)
    taken = {name for link in links for name in link.native}
    assert taken == set(parameter_shapes(settings))
    shapes = foreign_shapes(links, parameter_shapes(settings))
    tables = [shape for name, shape in shapes.items() if "pos" in name]
    if table is google_big_vision_links and position == "sincos2d":  # computed there too, and no table is taken
        assert tables == []
        return
    assert tables in ([(1, 17, 32)], [(1, 16, 32)])


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("R50x2", "R152x1", "R200x3")])
def test_timm_builds_each_variant_with_these_tensors(variant: str) -> None:
    settings = tiny(variant=variant, image_px=64)
    with torch.device("meta"):
        model = timm.create_model(timm_architecture(settings), num_classes=5, **timm_arguments(settings))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert foreign_shapes(timm_links(settings), parameter_shapes(settings)) == shapes


@pytest.mark.parametrize("variant", ["R26+S/32", "R+Ti/16", "R50x1"])
def test_hybrids_and_resnets_come_back_from_google(variant: str) -> None:
    settings = tiny(variant=variant, image_px=64)
    tables = [google_links] if settings.family == "resnet" else [google_links, google_big_vision_links]
    for table in tables:
        links, shapes = table(settings), parameter_shapes(settings)
        assert {name for link in links for name in link.native} == set(shapes)
        foreign = foreign_shapes(links, shapes)
        back = [
            (link.native, link.to_native(*(np.empty(foreign[name], np.float32) for name in link.foreign)))
            for link in links
            if link.to_native
        ]
        assert {name: tuple(t.shape) for names, made in back for name, t in zip(names, made, strict=True)} == shapes
