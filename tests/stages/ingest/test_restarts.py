"""Restart markers written at ingest: other bytes, the same pixels, for readers that skip what they do not need."""

import ctypes
import io
import json
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from inprocess import InProcessCluster
from photos import contents, encoded, ingest, picture, write
from PIL import Image
from pydantic import ValidationError

from tests.stages.images.jpegs import by_pillow, jpeg, jpegs, needs_extension, textured
from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.index import parse_index
from vitpipe.stages.images.native import compilation
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.look import changes
from vitpipe.stages.ingest.look.changes import with_restarts


@needs_extension
@settings(deadline=None, max_examples=150)
@given(file=jpegs())
def test_pixels_stay_and_bytes_are_always_the_same(file):
    rewritten = with_restarts(file)
    assert np.array_equal(by_pillow(rewritten), by_pillow(file))
    assert with_restarts(file) == rewritten
    assert with_restarts(rewritten) == rewritten


@needs_extension
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 3}])
def test_every_row_of_blocks_has_a_marker(options):
    rewritten = with_restarts(jpeg(textured(100, 320, 1), **options))
    assert rewritten.count(b"\xff\xdd\x00\x04\x00\x04") == 1  # four MCUs: 64 pixels
    assert sum(rewritten.count(bytes([0xFF, 0xD0 + n])) for n in range(8)) == 7 * 5 - 1


@needs_extension
def test_what_stands_beside_the_pixels_stays():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(textured(64, 64, 2), "JPEG", exif=exif, comment=b"by hand", icc_profile=b"profile")
    rewritten = with_restarts(file)
    assert rewritten != file
    assert np.array_equal(decode(rewritten), decode(file))
    image = Image.open(io.BytesIO(rewritten))
    assert image.getexif()[0x0112] == 6
    assert image.info["comment"] == b"by hand" and image.info["icc_profile"] == b"profile"


@needs_extension
@pytest.mark.parametrize("form", ["cut", "CMYK", "PNG", "WEBP", "noise"])
def test_other_files_pass_unchanged(form):
    image = textured(40, 40, 3)
    file = {
        "cut": encoded(image, "JPEG")[:-40],
        "CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "noise": bytes(range(256)),
    }.get(form) or encoded(image, form)
    assert with_restarts(file) == file


def refused_late() -> bytes:
    """A JPEG that is read whole and refused while it is written: a coefficient of 15 bits, behind 1 MB of comments."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body

    zero, largest = b"\x01" + bytes(15) + b"\0", bytes((1, 1, *[0] * 14)) + b"\x0f\0"  # 15 bits, or the block's end
    return b"".join((
        b"\xff\xd8", *[segment(0xFE, bytes(65_000))] * 16, segment(0xDB, b"\0" + b"\x10" * 64),
        segment(0xC0, b"\x08\0\x08\0\x08\x01\x01\x11\0"), segment(0xC4, b"\0" + zero), segment(0xC4, b"\x10" + largest),
        segment(0xDA, b"\x01\x01\0\0\x3f\0"), bytes((0b00111111, 0b11111111, 0, 0b11011111)), b"\xff\xd9",
    ))  # fmt: skip


@needs_extension
def test_a_late_refusal_leaves_no_memory_behind():
    """Called with less room than the file takes, as after a caller who reckoned wrong."""
    library, written = ctypes.CDLL(str(compilation.compiled_extension())), ctypes.c_size_t()
    room, sizes = ctypes.create_string_buffer(4096), [ctypes.c_size_t(4096), ctypes.byref(written)]

    def rewrite(file: bytes, times: int) -> float:
        """MB by which this process grows."""
        before = resident()
        for _ in range(times):
            assert library.vitpipe_tile(file, ctypes.c_size_t(len(file)), room, *sizes) == 1
        return resident() - before

    rewrite(refused_late(), 3)
    assert rewrite(refused_late(), 60) < 20  # a megabyte each, if it stayed
    assert loaded_extension().tile(np.frombuffer(refused_late(), dtype=np.uint8)) is None, (
        "where there is room too: it is late"
    )
    whole = encoded(textured(64, 64, 2), "JPEG", comment=bytes(60_000))
    assert library.vitpipe_tile(whole, ctypes.c_size_t(len(whole)), room, *sizes) == 1, "there is no room"
    large = ctypes.create_string_buffer(len(whole) + 4096)
    assert library.vitpipe_tile(whole, ctypes.c_size_t(len(whole)), large, ctypes.c_size_t(len(large)), sizes[1]) == 0
    assert np.array_equal(decode(large.raw[: written.value]), decode(whole))


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@needs_extension
def test_an_ingest_with_markers_has_the_same_pixels(tmp_path):
    for number in range(12):
        write(tmp_path / f"source/c{number % 3}/{number}.jpg", jpeg(textured(90 + number, 70, number), quality=85))
    write(tmp_path / "source/c0/a.png", encoded(picture(5), "PNG"))
    write(tmp_path / "source/c1/bad.jpg", jpeg(textured(50, 50, 1))[:500])
    config = {"source": {"kind": "folder", "root": str(tmp_path / "source")}, "images_per_shard": 5}
    plain = ingest(tmp_path, config, node="plain")
    config["restart_intervals"] = True
    first = contents(ingest(tmp_path, config, node="first"))
    second = contents(ingest(tmp_path, config, node="second", cluster=InProcessCluster(rerun_tasks=True)))
    assert first == second
    others = contents(plain)
    assert first["quarantine.jsonl"] == others["quarantine.jsonl"] != b""
    assert json.loads(first["manifest.json"])["source"]["restart_intervals"] is True
    assert "restart_intervals" not in json.loads(others["manifest.json"])["source"]
    indexes = [name for name in others if name.endswith(".index")]
    rows = [
        [(i.source, i.pixels_sha256, i.width, i.labels, i.ext) for i in _indexes(f, indexes)] for f in (first, others)
    ]
    assert rows[0] == rows[1]
    changed = [a != b for one, other in zip(_indexes(first, indexes), _indexes(others, indexes), strict=True)
               for a, b in zip(one.sha256s, other.sha256s, strict=True)]  # fmt: skip
    assert changed.count(False) == 1  # the PNG


def _indexes(files: dict[str, bytes], names: list[str]):
    return [parse_index(files[name], name) for name in names]


def test_without_the_extension_it_is_refused_where_it_is_asked(monkeypatch):
    fields = {"source": {"kind": "folder", "root": "/photos"}, "restart_intervals": True}
    monkeypatch.setattr(compilation, "compiled_extension", lambda: None)
    with pytest.raises(ValidationError, match="libjpeg62-turbo-dev"):
        IngestConfig.model_validate(fields)
    assert IngestConfig.model_validate({**fields, "restart_intervals": False})
    monkeypatch.setattr(changes, "loaded_extension", lambda: None)
    with pytest.raises(UsageError, match="not built on this machine"):
        with_restarts(encoded(picture(1), "JPEG"))
