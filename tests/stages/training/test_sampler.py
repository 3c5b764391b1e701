"""Micro-batches cover a step exactly once at every world size, and all ranks make equally many passes."""

from hypothesis import given
from hypothesis import strategies as st

from vitpipe.stages.training.sampler import DataParallelSampler


@given(micro=st.integers(1, 8), num=st.integers(1, 20), world=st.integers(1, 9), step=st.integers(0, 10**9))
def test_every_image_of_a_step_is_dealt_once(micro: int, num: int, world: int, step: int) -> None:
    samplers = [DataParallelSampler(micro * num, micro, rank, world) for rank in range(world)]
    spans = [span for sampler in samplers for span in sampler.ranges(step, step + 1)]
    positions = [position for start, count in spans for position in range(start, start + count)]
    assert sorted(positions) == list(range(step * micro * num, (step + 1) * micro * num))
    assert len({len(sampler.numbers()) for sampler in samplers}) == 1


def test_the_rest_of_the_last_round_is_padding() -> None:
    samplers = [DataParallelSampler(12, 4, rank, 2) for rank in range(2)]
    assert [sampler.numbers() for sampler in samplers] == [[0, 2], [1, 3]]
    assert samplers[1].is_padding(3)
    assert list(samplers[1].ranges(5, 7)) == [(64, 4), (76, 4)]
