"""A damaged shard is an error that names it, never a shorter or another stream."""

import multiprocessing
from pathlib import Path

import pytest
from photos import indexes, ingest, photo_folder, read_split

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split


@pytest.fixture
def fresh(tmp_path):
    root = photo_folder(tmp_path / "source", per_class=4)
    return ingest(tmp_path, {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 6})


def stored(shards, path: str) -> Path:
    return Path(shards.uri.removeprefix("file://")) / shards.file(path).at


def read_all(shards, cache):
    return [batch.images_BCHW for batch in EvalImages(shards, "train", 12, "squash", cache).batches(4)]


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 1024, 2000, -10_240, -1])
def test_a_cut_shard_is_named(fresh, tmp_path, cut):
    shard = stored(fresh, "train-000001.tar")
    shard.write_bytes(shard.read_bytes()[:cut])
    with pytest.raises(IntegrityError, match=r"train-000001\.tar"):
        read_all(fresh, tmp_path / "cache")


@pytest.mark.parametrize("place", [0, 100, 148, 512, 700, 5000, -600, -1])
def test_a_flipped_byte_is_named(fresh, tmp_path, place):
    shard = stored(fresh, "train-000001.tar")
    data = bytearray(shard.read_bytes())
    data[place] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"train-000001\.tar"):
        read_all(fresh, tmp_path / "cache")


@pytest.mark.parametrize("path", ["manifest.json", "train-000000.index"])
def test_a_flipped_manifest_or_index_is_named(fresh, tmp_path, path):
    file = stored(fresh, path)
    file.write_bytes(file.read_bytes().replace(b"train", b"trian", 1))
    with pytest.raises(IntegrityError, match=path):
        read_all(fresh, tmp_path / "cache")


def test_a_cut_cache_is_filled_again_and_a_flipped_one_is_found(fresh, tmp_path):
    good = read_all(fresh, tmp_path / "cache")
    for tar in (tmp_path / "cache").rglob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:-512])
    assert all(bool((a == b).all()) for a, b in zip(read_all(fresh, tmp_path / "cache"), good, strict=True))
    index = indexes(Split(fresh, "train", tmp_path / "cache"))[0]
    tar = next(tar for tar in (tmp_path / "cache").rglob("*.tar") if tar.stem == index.sha256)
    data = bytearray(tar.read_bytes())
    data[index.offset[0] + 20] ^= 0xFF
    tar.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"train-000000\.tar.*not those ingested"):
        read_all(fresh, tmp_path / "cache")


def test_names_in_a_tar_never_become_paths(fresh, tmp_path):
    """The reader goes by offsets: the only files it makes are named by digests."""
    read_all(fresh, tmp_path / "cache")
    digests = {fresh.file(name).sha256 for entry in load_manifest(fresh).shards for name in (entry.path, entry.index)}
    made = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.stem for path in made} == digests | {"room"}


def test_many_processes_share_one_cache(fresh, tmp_path):
    context = multiprocessing.get_context("spawn")
    readers = [context.Process(target=read_split, args=(fresh, tmp_path / "cache")) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == 2
    assert not list((tmp_path / "cache").rglob("*.part"))
