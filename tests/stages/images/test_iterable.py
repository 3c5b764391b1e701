"""The exact order in other people's loops."""

from itertools import islice

import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from infra.errors import UsageError
from stages.images.config import AugmentSettings
from stages.images.iterable import ShardStream

PLAIN = AugmentSettings(crop="none", flip=False)


@pytest.fixture
def stream(photos, tmp_path) -> ShardStream:
    return ShardStream.open(photos.uri, 6, 12, tmp_path / "cache")


def taken(stream: ShardStream, count: int, workers: int = 0, loader=DataLoader):
    # spawned: other tests leave threads here that a fork would not carry
    context = "spawn" if workers else None
    return list(islice(loader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context), count))


def equal(one, other) -> bool:
    return all(
        torch.equal(a, b) for batch, twin in zip(one, other, strict=True) for a, b in zip(batch, twin, strict=True)
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_loaders_and_resumes_change_nothing(stream):
    """What is not looked at: torch's worker may abort as it ends, of a thread of its own, when it is told to early."""
    whole = taken(stream, 7)
    assert whole[0][0].shape == (6, 3, 12, 12) and whole[0][0].dtype == torch.uint8
    assert equal(taken(stream, 7, workers=2), whole)
    assert equal(taken(stream, 7, loader=webdataset.WebLoader), whole)
    assert equal(taken(stream.with_(samples_seen=24), 3), whole[4:])
    assert not equal(taken(stream.with_(seed=1), 7), whole)


def test_ranks_share_each_batch(stream):
    whole = taken(stream, 4)
    ranks = [taken(stream.with_(rank=rank, world_size=3), 4) for rank in range(3)]
    joined = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True)) for batches in zip(*ranks, strict=True)]
    assert equal(joined, whole)
    with pytest.raises(UsageError, match="cannot share"):
        stream.with_(world_size=4)


def test_an_epoch_is_every_image_once(stream):
    plain = stream.with_(augment=PLAIN)
    epoch = torch.cat([images for images, _ in taken(plain, 3)])
    assert len({image.numpy().tobytes() for image in epoch}) == 18


def test_only_shards_stream(tmp_path):
    from synthetic import weights

    with pytest.raises(UsageError, match="It is a Weights"):
        ShardStream.open(weights(tmp_path).uri, 6, 12, tmp_path / "cache")
