"""Blocks that drop branches at rates of their own share one graph, at any depth; and giving up is told."""

from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import torch
from tiny_vit import random_images, random_model, tiny
from torch._dynamo.testing import CompileCounter

from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import blocks_of
from vitpipe.stages.vit.compiled import compile_blocks

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, which its compiler means to hide
BLOCKS = 24
DEEP = tiny(variant=Sizes(layers=BLOCKS, width=16, mlp=16, heads=2, patch_px=16), image_px=32, stochastic_depth=0.2)
IMAGES = random_images(DEEP, 4)


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def passed(tell: Callable[[str], None]) -> int:
    """Graphs made by a pass forth and back."""
    counter, model = CompileCounter(), random_model(DEEP).train()
    compile_blocks(model, tell, backend=counter)
    model(IMAGES).sum().backward()
    return counter.frame_count


def test_all_blocks_that_drop_share_a_graph() -> None:
    """The first block drops nothing and draws nothing: it has its own."""
    told: list[str] = []
    assert len({block.drop_path.rate for block in blocks_of(random_model(DEEP))[1:]}) == BLOCKS - 1
    assert passed(told.append) == 2
    assert told == []


def test_rates_that_are_numbers_hit_the_limit_and_it_is_told_once() -> None:
    """Negative control: the path of a pass that is not compiled, in a compiled one."""
    told: list[str] = []
    with mock.patch("torch.compiler.is_compiling", lambda: False), torch._dynamo.config.patch(recompile_limit=3):
        assert passed(told.append) == 3
    assert len(told) == 1 and "torch has made 3 graphs" in told[0] and "depth.py" in told[0]


def test_a_compiled_block_drops_as_often_and_scales_the_same() -> None:
    model = random_model(DEEP).train()
    drop = blocks_of(model)[-1].drop_path
    found = torch.compile(drop, backend="eager")(torch.ones(20_000, 1))
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.8])
    assert (found > 0).float().mean().item() == pytest.approx(0.8, abs=5 * (0.8 * 0.2 / 20_000) ** 0.5)
