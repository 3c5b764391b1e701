"""What the plan says of a batch that does not fit the streams, beside the real order of the images."""

import re

import numpy as np
import pytest

from vitpipe.stages.images.order import BLOCK, WINDOW, Order
from vitpipe.stages.pretrain.locality import MACHINE, batch_note, share_read
from vitpipe.stages.training.sampler import DataParallelSampler

IMAGES = 16 * WINDOW


def streams_read(batch, micro, workers, beside=MACHINE):
    """The streams that the first machine's positions lie in, through an epoch's whole steps."""
    order, found = Order([1000] * (IMAGES // 1000) + [IMAGES % 1000], "digest", 0), set()
    for rank in range(min(beside, workers)):
        ranges = DataParallelSampler(batch, micro, rank, workers).ranges(0, IMAGES // batch)
        starts = np.array([start for start, _ in ranges])
        for offset in {*range(0, micro, BLOCK), micro - 1}:
            found |= {window[1] for window in order.windows_at(starts + offset)}
    return len(found) / order.streams


@pytest.mark.parametrize(
    ("batch", "micro", "workers", "expected"),
    [
        (512, 8, 64, 1 / 8), (256, 16, 16, 1 / 2), (512, 8, 32, 1 / 4), (1024, 16, 64, 1 / 4), (1000, 10, 50, 1),
        (384, 8, 48, 1 / 2), (480, 10, 48, 1), (500, 10, 50, 1), (64, 2, 32, 1 / 2), (4096, 8, 64, 1 / 8),
    ],
)  # fmt: skip
def test_a_machine_reads_the_streams_that_the_order_says(batch, micro, workers, expected):
    assert share_read(IMAGES, batch, micro, workers) == streams_read(batch, micro, workers) == expected


@pytest.mark.parametrize(("beside", "expected"), [(1, 1 / 16), (4, 1 / 16), (16, 1 / 4)])
def test_machines_of_fewer_workers_read_less(beside, expected):
    """Of 64 workers whose batch fits the sixteen streams, four come to each."""
    assert share_read(IMAGES, 512, 8, 64, beside) == streams_read(512, 8, 64, beside) == expected
    note = batch_note(14_400_000, 4000, 80, 50, beside)
    assert note is not None and f"each machine of {beside} worker" in note
    assert batch_note(14_400_000, 4000, 80, 16, 16) is None, "one machine reads all of it anyway"


def test_a_batch_that_does_not_fit_is_told_with_those_near_it_that_do():
    note = batch_note(14_400_000, 4000, 80, 50)
    assert note is not None and "reads 100%" not in note
    assert "batch_images 4,000" in note and "read 100% of the set; near it fit" in note and "4,096" in note
    for fits in ((303_000_000, 4096, 64, 64), (14_400_000, 4096, 64, 8), (100_000, 4000, 80, 50)):
        assert batch_note(*fits) is None  # a batch that fits, one machine, a set that is one stream


@pytest.mark.parametrize(
    ("batch", "micro", "workers"), [(4000, 80, 50), (4608, 48, 64), (3000, 50, 12), (5000, 40, 100)]
)
def test_sizes_that_are_said_to_fit_leave_no_worker_idle(batch, micro, workers):
    note = batch_note(14_400_000, batch, micro, workers)
    assert note is not None
    told = re.findall(
        r"([\d,]+)(?: with micro_batch (\d+))?(?: on (\d+) workers)? \(", note.partition("near it fit ")[2]
    )
    assert told
    for size, of_each, on in told:
        passes, rest = divmod(int(size.replace(",", "")), int(of_each or micro))
        assert rest == 0 and passes % int(on or workers) == 0


def test_sizes_that_are_said_to_fit_can_be_taken():
    """4,096 is no multiple of 48: of 64 workers each then has a micro-batch of 64."""
    note = batch_note(14_400_000, 4608, 48, 64)
    assert (
        note is not None and "near it fit 4,096 with micro_batch 64 (12%) or 8,192 with micro_batch 128 (25%)" in note
    )
    kept = batch_note(14_400_000, 4128, 32, 64)
    assert kept is not None and "near it fit 4,096 (" in kept
