"""The exact order in other people's loops."""

import io
import subprocess
import sys
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from forking import processes
from torch.utils.data import DataLoader, IterableDataset

import vitpipe
from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.iterable import ShardStream
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.split import Split

PLAIN = AugmentSettings(crop="none", flip=False)
ENDING = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:This DataLoader will")
"""torch's worker may abort as it ends, of a thread of its own, when that comes early; three are more than the cores."""


@pytest.fixture
def stream(photos, tmp_path) -> ShardStream:
    return ShardStream.open(photos.uri, 6, 12, tmp_path / "cache")


def taken(stream: IterableDataset, count: int, workers: int = 0, loader=DataLoader):
    """The first batches of a loader whose workers, if any, are forked from a process without other threads."""
    more = {"num_workers": workers, "multiprocessing_context": processes()} if workers else {}
    return list(islice(loader(stream, batch_size=None, **more), count))


def equal(one, other) -> bool:
    return all(
        torch.equal(a, b) for batch, twin in zip(one, other, strict=True) for a, b in zip(batch, twin, strict=True)
    )


@ENDING
def test_workers_loaders_and_resumes_change_nothing(stream):
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
    for wrong in ({"batch_images": 0}, {"batch_images": -8}, {"batch_images": 8.0}, {"world_size": 0}, {"rank": -1},
                  {"samples_seen": -1}, {"samples_seen": 1.5}, {"shares": (1, 2)}, {"shares": (1,)}):  # fmt: skip
        with pytest.raises(UsageError, match=r"(?i)stream"):
            stream.with_(**wrong)


def test_an_epoch_is_every_image_once(stream):
    plain = stream.with_(augment=PLAIN)
    epoch = torch.cat([images for images, _ in taken(plain, 3)])
    assert len({image.numpy().tobytes() for image in epoch}) == 18


def test_only_shards_stream(tmp_path):
    from synthetic import weights

    with pytest.raises(UsageError, match="it is a Weights"):
        ShardStream.open(weights(tmp_path).uri, 6, 12, tmp_path / "cache")
    with pytest.raises(UsageError, match="nothing is committed there"):
        ShardStream(tmp_path / "nothing", 6, cache=tmp_path / "cache")


def width(picture) -> int:
    return picture.width


def pipeline(stream: ShardStream) -> webdataset.DataPipeline:
    """As people write it: decoded, changed, taken apart, and whole batches made in the workers."""
    return webdataset.DataPipeline(
        stream.samples(),
        webdataset.decode("pil"),
        webdataset.map_dict(png=width),
        webdataset.to_tuple("__key__", "png", "cls"),
        webdataset.batched(stream.batch_images // stream.world_size),
    )


@pytest.fixture
def ordered(photos, tmp_path):
    """The key at each position, by the order itself."""
    split = Split(photos, "train", tmp_path / "cache")
    order = Order(split.counts.tolist(), f"{photos.manifest_sha256}/train", 0)
    return [split.key(number) for number in order.lookup(np.arange(72))[1].tolist()]


@ENDING
def test_two_ranks_of_three_workers_in_webdatasets_pipeline_stopped_and_resumed(stream, ordered):
    ranks = [stream.with_(rank=rank, world_size=2) for rank in range(2)]
    first = [taken(pipeline(rank), 5, 3, webdataset.WebLoader) for rank in ranks]
    second = [taken(pipeline(rank.with_(samples_seen=30)), 7, 3, webdataset.WebLoader) for rank in ranks]
    turns = chain(zip(*first, strict=True), zip(*second, strict=True))
    seen = [key for turn in turns for keys, _, _ in turn for key in keys]
    assert seen == ordered
    for epoch in range(4):
        assert Counter(seen[18 * epoch : 18 * (epoch + 1)]) == Counter(ordered[:18]) and len(set(ordered[:18])) == 18


@ENDING
def test_batches_made_behind_the_loader_have_turns_of_one_sample(stream, ordered):
    def singles(stream):
        return stream.samples().decode("pil").map_dict(png=width).to_tuple("__key__", "png", "cls")

    one = singles(stream.with_(batch_images=2, rank=1, world_size=2))
    found = taken(one, 20, 3, webdataset.WebLoader)
    assert [key for key, _, _ in found] == ordered[1:40:2]
    batches = taken(one, 5, 0, lambda *args, **more: webdataset.WebLoader(*args, **more).batched(4))
    assert [key for keys, _, _ in batches for key in keys] == ordered[1:40:2]


def test_samples_are_those_that_webdataset_reads(photos, stream):
    tars = [f"{photos.uri}/{photos.file(f'train-{n:06d}.tar').at}".removeprefix("file://") for n in range(4)]
    opened = ({"url": f"file://{tar}", "stream": io.BytesIO(Path(tar).read_bytes())} for tar in tars)
    expanded = webdataset.tariterators.tar_file_expander(opened)
    plain = {sample["__key__"]: sample for sample in webdataset.tariterators.group_by_keys(expanded)}
    assert {sample["__key__"]: sample for sample in islice(stream.samples(), 18)} == plain


def test_a_set_is_named_as_it_is_told(photos, stream, tmp_path):
    for place in (photos, photos.uri, photos.uri.removeprefix("file://"), Path(photos.uri.removeprefix("file://"))):
        assert ShardStream(place, 6, 12, cache=tmp_path / "cache") == stream
    unsized = ShardStream(photos, 6, cache=str(tmp_path / "cache"))
    assert next(iter(unsized.samples()))["__key__"].startswith("train-")
    with pytest.raises(UsageError, match="Give `image_px`, or use `samples"):
        next(iter(unsized))


def test_the_library_names_it_and_imports_nothing_before():
    assert vitpipe.ShardStream is ShardStream and set(vitpipe.__all__) <= set(dir(vitpipe))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vitpipe.nothing  # noqa: B018
    code = "import sys, vitpipe; assert vitpipe.__version__ and not {'torch', 'vitpipe.stages'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(vitpipe.__file__).parents[1])


def test_several_sets_may_be_a_list(photos, tmp_path):
    places = [photos.uri, str(photos.uri)]
    streams = [ShardStream(given, shares=(0.5, 0.5), cache=tmp_path) for given in (places, tuple(places))]
    assert streams[0].shards == streams[1].shards and len(streams[0].shards) == 2
