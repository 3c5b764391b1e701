"""A shard as other people read it: webdataset's own expansion and grouping, compared with the index. No torch.

Knows an open tar and its index, not how either was written. webdataset ignores much damage silently, so it is not asked
whether a tar is sound: what it gives has to match the whole index, image by image, and to fill the whole tar.
"""

import hashlib
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from threading import Lock
from typing import Any, NamedTuple, Protocol

from vitpipe.infra.errors import IntegrityError, VitpipeError
from vitpipe.stages.images.digests import sha256_each
from vitpipe.stages.images.index import ShardIndex

_BLOCK = tarfile.BLOCKSIZE
_TOGETHER = 16
"""Images that are digested together."""
_LABEL = {False: "cls", True: "json"}
_OURS = ("__key__", "__url__")
"""Keys that webdataset adds to the members."""
_loading = Lock()

Sample = Mapping[str, Any]


class Readable(Protocol):
    """An open file, or anything else that gives its bytes in order."""

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; none at the end."""


def read_back(tar: Readable, index: ShardIndex, multi_label: bool, of: str) -> None:
    """Read a whole tar, opened by the caller, as `wds.WebDataset` does. IntegrityError naming the shard.

    Keys, members, sizes, digests and labels have to be the index's, in its order, each key once, and nothing else; and
    each image has to begin where the index says.
    """
    stream = _Stream(tar)
    found = next(_differences(_samples(stream, index, of), stream, index, multi_label), None)
    if found is not None:
        raise _fault(index, of, found)


class _Stream:
    """The file that webdataset reads; it keeps the bytes since the last image that was compared."""

    def __init__(self, tar: Readable) -> None:
        self._tar, self._begins, self._kept = tar, 0, bytearray()

    def read(self, size: int) -> bytes:
        data = self._tar.read(size)
        self._kept += data
        return data

    def has(self, data: bytes, at: int) -> bool:
        """Whether these bytes are at that place in the tar; the bytes before them are dropped."""
        del self._kept[: at - self._begins]
        self._begins = at
        return self._kept.startswith(data)

    def rest(self, at: int) -> bytes:
        """All bytes from there on."""
        while self.read(1 << 20):
            pass
        return bytes(self._kept[at - self._begins :])


def _differences(samples: Iterator[Sample], stream: _Stream, index: ShardIndex, multi_label: bool) -> Iterator[str]:
    """Say where the samples differ from the index, as they come."""
    if len(set(index.key)) < index.count:
        yield f"the index has the key {max(index.key, key=list(index.key).count)!r} more than once"
    end, images = 0, list[bytes]()
    for sample, row in zip_longest(samples, range(index.count)):
        if row is None:
            yield f"a sample {sample['__key__']!r} stands behind the last of {index.count}"
        elif sample is None:
            yield f"it has {row} samples, the index {index.count}: {index.key[row]!r} is the first that is missing"
        else:
            yield from _wrong_members(sample, index, row, multi_label)
            if index.offset[row] != end + _BLOCK:
                yield f"the image {index.key[row]!r} begins at byte {end + _BLOCK}, the index says {index.offset[row]}"
            if not stream.has(sample[index.ext[row]], index.offset[row]):
                yield f"the image {index.key[row]!r} does not begin at byte {index.offset[row]}, as the index says"
            end += sum(_room(data) for name, data in sample.items() if name not in _OURS)
            images.append(sample[index.ext[row]])
            if len(images) == _TOGETHER or row == index.count - 1:
                yield from _wrong_digests(images, index, row + 1 - len(images))
                images = []
    rest = stream.rest(end)
    if end + len(rest) != index.tar_bytes:
        yield f"it has {end + len(rest)} bytes, the index says {index.tar_bytes}"
    if rest != bytes(-(-(end + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE - end):
        yield f"something else than the end of a tar stands behind its last sample, at byte {end}"


def _wrong_members(sample: Sample, index: ShardIndex, row: int, multi_label: bool) -> Iterator[str]:
    key, ext, kept = index.key[row], index.ext[row], index.kept_of(row)
    label = _LABEL[multi_label] if index.labels[row] else None
    if sample["__key__"] != key:
        yield f"sample {row} is {sample['__key__']!r}, the index says {key!r}"
    members = sorted(name for name in sample if name not in _OURS)
    wanted = [ext, *([label] if label else []), *(name for name, _, _ in kept)]
    if members != sorted(wanted):
        yield f"{key!r} has the members {', '.join(members)}; it should have {' and '.join(wanted)}"
    if len(sample[ext]) != index.size[row]:
        yield f"the image {key!r} has {len(sample[ext])} bytes, the index says {index.size[row]}"
    for name, size, sha256 in kept:
        if (len(sample[name]), hashlib.sha256(sample[name]).hexdigest()) != (size, sha256):
            yield f"the {name} of {key!r} is not what the index says"
    if label is None:
        return
    try:
        decoded = _webdataset().decoded(label, sample[label])
        labels = decoded["labels"] if multi_label else [decoded]
    except (ValueError, TypeError, KeyError) as error:
        yield f"the label of {key!r} is {bytes(sample[label][:40])!r}: {error}"
    else:
        if labels != list(index.labels[row]):
            yield f"the label of {key!r} is {labels}, the index says {list(index.labels[row])}"


def _wrong_digests(images: Sequence[bytes], index: ShardIndex, first: int) -> Iterator[str]:
    for row, found in enumerate(sha256_each([(b"", image) for image in images]), first):
        if found != index.sha256s[row]:
            yield f"the SHA-256 of the image {index.key[row]!r} is {found}, the index says {index.sha256s[row]}"


def _samples(tar: _Stream, index: ShardIndex, of: str) -> Iterator[Sample]:
    """The samples that webdataset makes of the tar; it is given the open file, never a name to open."""
    webdataset, so_far = _webdataset(), 0
    try:
        for sample in webdataset.grouped(webdataset.expanded([{"url": index.path, "stream": tar}])):
            so_far += 1
            yield sample
    except VitpipeError:  # from the reader of the bytes
        raise
    except Exception as error:  # whatever a damaged tar raises in there
        reason = error.args[0] if error.args else error
        raise _fault(index, of, f"webdataset gives up after {so_far} of {index.count} samples: {reason}") from error


def _room(data: bytes) -> int:
    """Bytes that a member takes in a plain tar: one header, and its data padded to whole blocks."""
    return _BLOCK + len(data) + -len(data) % _BLOCK


def _fault(index: ShardIndex, of: str, found: str) -> IntegrityError:
    do = "run again; the same once more is a fault of the writer or of this machine's memory: report it"
    return IntegrityError(f"read {index.path} of {of} back with webdataset", found, do)


class _Webdataset(NamedTuple):
    """The functions by which `wds.WebDataset` reads a tar, and by which `.decode()` reads a label."""

    expanded: Any
    grouped: Any
    decoded: Any


def _webdataset() -> _Webdataset:
    with _loading:
        return _loaded()


@cache
def _loaded() -> _Webdataset:
    """Import webdataset without torch where this process has not imported torch.

    These functions do not need it, and a worker of ingest with 54 MB of memory would take 280 MB more. A webdataset
    without torch is taken out of `sys.modules`, so that a later import gets one with torch.
    """
    bare = "torch" not in sys.modules and "webdataset" not in sys.modules
    if bare:
        sys.modules["torch"] = None  # type: ignore[assignment]  # webdataset goes on without what is not installed
    try:
        from webdataset import autodecode, tariterators  # in a function: see above
    finally:
        if bare:
            del sys.modules["torch"]
            for name in [name for name in sys.modules if name.partition(".")[0] == "webdataset"]:
                del sys.modules[name]
    return _Webdataset(tariterators.tar_file_expander, tariterators.group_by_keys, autodecode.basichandlers)
