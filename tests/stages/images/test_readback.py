"""webdataset's reading is compared with the whole index: whatever is wrong in a tar or its index is named."""

import io
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import webdataset as wds

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.index import parse_index
from vitpipe.stages.images.readback import read_back
from vitpipe.stages.ingest.write.ustar import BLOCK, end, header, padding

LAST_OF_SUM = 155
"""Place in a header."""


@pytest.fixture(scope="module")
def shard(photos):
    """A shard's tar and index."""
    path = "train-000000.tar"
    store = photos.store()
    return store.read(photos.file(path).at), parse_index(photos.read("train-000000.index"), path)


def told(tar: bytes, index, multi_label: bool = False) -> str | None:
    """What is found wrong; None when all is well."""
    try:
        read_back(io.BytesIO(tar), index, multi_label, "here")
    except IntegrityError as error:
        assert f"read {index.path} of here back with webdataset" in str(error)
        return error.found
    return None


def test_a_sound_shard_is_read_whole(shard):
    tar, index = shard
    assert index.count == 5 and told(tar, index) is None


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"key": [1, 0, 2, 3, 4]}, r"sample 0 is 'train-000000000', the index says 'train-000000001'"),
        ({"labels": 1}, r"the label of 'train-000000000' is \[\d\], the index says \[\d\]"),
        ({"size": [3, 1, 2, 0, 4]}, r"the image 'train-00000000\d' has \d+ bytes, the index says \d+"),
        ({"sha256s": [0, 1, 2, 4, 3]}, r"the SHA-256 of the image 'train-000000003' is \w{64}, the index says \w{64}"),
        ({"offset": [0, 1, 2, 2, 4]}, r"the image 'train-000000003' begins at byte \d+, the index says \d+"),
        ({"ext": "jpg"}, "'train-000000000' has the members cls, png; it should have jpg and cls"),
        ({"key": [0, 0, 1, 2, 3]}, "the index has the key 'train-000000000' more than once"),
        ({"tar_bytes": 10240}, "it has 20480 bytes, the index says 10240"),
    ],
    ids=str,
)
def test_every_column_of_the_index_is_compared(shard, changed, found):
    tar, index = shard
    ((name, to),) = changed.items()
    column = getattr(index, name)
    if isinstance(to, list):
        column = [column[place] for place in to]
    elif name == "labels":
        column = [[label + to for label in labels] for labels in column]
    else:
        column = [to] * index.count if name == "ext" else to
    assert re.fullmatch(found, told(tar, replace(index, **{name: column})) or "nothing")


def test_the_kind_of_label_is_the_sets(shard):
    assert told(*shard, multi_label=True) == "'train-000000000' has the members cls, png; it should have png and json"


def members(shard) -> list[bytes]:
    """Each image of the tar as the bytes of its two members."""
    tar, index = shard
    begins = [offset - BLOCK for offset in index.offset]
    ends = [*begins[1:], index.offset[-1] + index.size[-1] + len(padding(index.size[-1])) + 2 * BLOCK]
    return [tar[begin:stop] for begin, stop in zip(begins, ends, strict=True)]


def closed(parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    return body + end(len(body))


def member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + padding(len(data))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_webdataset_passes_over_in_silence_is_told_here(shard):
    """Fewer, more, or foreign members: it reads them all without an error, and gives what is not the index."""
    tar, index = shard
    whole = members(shard)
    assert closed(whole) == tar
    silent = {
        "the last one is missing": (closed(whole[:-1]), "it has 4 samples, the index 5: 'train-000000004'"),
        "one in between is missing": (closed([*whole[:2], *whole[3:]]), "sample 2 is 'train-000000003'"),
        "one more": (closed([*whole, member("x.png", b"x") + member("x.cls", b"1")]), "a sample 'x' stands behind"),
        "two in another order": (closed([whole[1], whole[0], *whole[2:]]), "sample 0 is 'train-000000001'"),
        "a member without an extension": (
            closed([whole[0], member("noise", b"x"), *whole[1:]]),
            "does not begin at byte",
        ),
        "metadata behind the last": (closed([*whole, member("__x__", b"x")]), "something else than the end"),
        "a third member": (closed([whole[0], member("train-000000000.txt", b"x"), *whole[1:]]), "cls, png, txt"),
        "cut between two": (tar[: len(b"".join(whole[:3]))], "it has 3 samples, the index 5"),
    }
    for what, (damaged, found) in silent.items():
        assert list(wds.tariterators.group_by_keys(expanded(damaged))), what
        assert found in (told(damaged, replace(index, tar_bytes=len(damaged))) or "nothing"), what


def expanded(tar: bytes):
    return wds.tariterators.tar_file_expander([{"url": "x", "stream": io.BytesIO(tar)}])


def test_no_flip_and_no_cut_goes_unseen(shard):
    """But in what no reader looks at: the padding behind a member, and the space behind a header's checksum."""
    tar, index = shard
    unread = set()
    for offset, size in zip(index.offset, index.size, strict=True):
        label = offset + size + len(padding(size)) + BLOCK
        unread |= {*range(offset + size, label - BLOCK), *range(label + 1, label + BLOCK)}
        unread |= {offset - BLOCK + LAST_OF_SUM, label - BLOCK + LAST_OF_SUM}
    for place in range(0, len(tar), 3):
        flipped = tar[:place] + bytes([tar[place] ^ 1]) + tar[place + 1 :]
        assert (told(flipped, index) is None) == (place in unread), place
    for cut in range(0, len(b"".join(members(shard))), 17):
        assert told(tar[:cut], index) is not None, cut


def test_a_worker_of_ingest_reads_back_without_torch(shard, tmp_path):
    """And a later import of webdataset gets all of it."""
    tar, index = shard
    (tmp_path / "x.tar").write_bytes(tar)
    (tmp_path / "x.index").write_bytes(index.encode())
    code = f"""
import sys
from vitpipe.stages.images.index import parse_index
from vitpipe.stages.images.readback import read_back
index = parse_index(open({str(tmp_path / "x.index")!r}, "rb").read(), "x")
read_back(open({str(tmp_path / "x.tar")!r}, "rb"), index, False, "here")
assert not {{"torch", "webdataset"}} & set(sys.modules), sorted(sys.modules)
import webdataset, torch
assert issubclass(webdataset.DataPipeline, torch.utils.data.IterableDataset)
read_back(open({str(tmp_path / "x.tar")!r}, "rb"), index, False, "here")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
