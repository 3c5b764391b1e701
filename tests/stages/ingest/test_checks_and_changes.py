"""A structure check finds what is cut without decoding; bytes change only where the config asks, and are counted."""

import io
import struct
import zlib

import numpy as np
import pytest
from inprocess import make_context
from photos import contents, encoded, indexes, ingest, photo_folder, picture, write
from PIL import Image
from pydantic import ValidationError
from test_ingest_determinism import Shuffled

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources, Reencode, check_inputs
from vitpipe.stages.ingest.lists import listed
from vitpipe.stages.ingest.look import scan as scan_module
from vitpipe.stages.ingest.look.changes import reencoded
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.look.structure import check_structure
from vitpipe.stages.ingest.run import run

RGB = picture(3, 60, 40)
WHOLE = {
    "jpg": encoded(RGB, "JPEG"), "progressive": encoded(RGB, "JPEG", progressive=True), "png": encoded(RGB, "PNG"),
    "webp": encoded(RGB, "WEBP"), "lossless": encoded(RGB, "WEBP", lossless=True),
}  # fmt: skip


def turned(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RGB, form, exif=exif)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass_and_every_cut_is_found(name):
    data = WHOLE[name]
    header = check_structure(data)
    assert (header.width, header.height) == (60, 40)
    for cut in range(1, len(data) - 2):
        with pytest.raises(BadImage):
            check_structure(data[:cut])


def test_an_end_inside_a_thumbnail_is_not_the_end():
    exif = Image.Exif()
    exif[0x927C] = encoded(RGB.resize((8, 8)), "JPEG")  # a whole JPEG in the metadata
    data = encoded(RGB, "JPEG", exif=exif)
    check_structure(data)
    for cut in range(data.index(b"\xff\xd9") + 2, len(data) - 2):
        with pytest.raises(BadImage):
            check_structure(data[:cut])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_sizes_are_those_of_the_upright_image(form):
    header, pixels = check_structure(turned(form)), decode(turned(form))
    assert (header.height, header.width) == pixels.shape[:2] == (60, 40)


def test_every_flipped_byte_of_a_png_is_found_and_not_of_a_jpeg():
    data = WHOLE["png"]
    for place in range(len(data)):
        with pytest.raises(BadImage):
            check_structure(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    jpeg = WHOLE["jpg"]
    place = len(jpeg) - 50
    check_structure(jpeg[:place] + bytes([jpeg[place] ^ 1]) + jpeg[place + 1 :])  # what only decoding may see


def test_what_only_decoding_sees_is_told_with_the_check_that_would(tmp_path):
    """A whole PNG of a broken stream passes a structure check; whoever reads it learns how to find the others."""
    data = WHOLE["png"]
    chunk = b"IDAT" + bytes(20)
    broken = data[:33] + struct.pack(">I", 20) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]
    check_structure(broken)
    asked = folder(tmp_path, check="structure")
    write(tmp_path / "user/class-0/broken.png", broken)
    split = Split(ingest(tmp_path, asked), "train", tmp_path / "cache")
    with pytest.raises(IntegrityError, match=r"its bytes are those ingested.*`check: decode`"):
        split.pixels(indexes(split)[0].source.index("class-0/broken.png"))


def folder(tmp_path, **more):
    root = photo_folder(tmp_path / "user", per_class=4, form="JPEG")
    return {"source": {"kind": "folder", "root": str(root)}, **more}


def test_a_structure_check_decodes_nothing(tmp_path, monkeypatch):
    asked = folder(tmp_path, check="structure")
    cut = (tmp_path / "user/class-0/000.jpeg").read_bytes()[:-30]
    write(tmp_path / "user/class-0/cut.jpg", cut)
    write(tmp_path / "user/class-0/twice.jpg", (tmp_path / "user/class-0/001.jpeg").read_bytes())
    plain = ingest(tmp_path, {**asked, "check": "decode"}, node="decoded")
    monkeypatch.setattr(scan_module, "digest_images", lambda files: pytest.fail("decoded"))
    shards = ingest(tmp_path, asked)
    assert (shards.metrics["structure_checked"], shards.metrics["quarantined"], shards.metrics["duplicates"]) == (
        14,
        1,
        1,
    )
    assert plain.metrics["decoded"] == 14
    tar = "train-000000.tar"
    assert contents(shards)[tar] == contents(plain)[tar]  # the same shard, sooner
    index = shards.read_json("train-000000.index")
    assert index["pixels_sha256"] == index["sha256s"]


def test_what_compares_pixels_needs_them(tmp_path):
    config = IngestConfig.model_validate(folder(tmp_path, check="structure"))
    assert "choose check: decode" in check_inputs(config, {"exclude": 1})[0]
    assert check_inputs(config, {}) == []


def shown(shards):
    tar = contents(shards)["train-000000.tar"]
    index = shards.read_json("train-000000.index")
    data = [tar[at : at + size] for at, size in zip(index["offset"], index["size"], strict=True)]
    return {source: (ext, one) for source, ext, one in zip(index["source"], index["ext"], data, strict=True)}


def test_larger_images_shrink_and_smaller_ones_pass_untouched(tmp_path):
    asked = folder(tmp_path, reencode={"shorter_px": 24})  # the folder's are 20 x 16
    write(tmp_path / "user/class-0/large.jpg", encoded(RGB, "JPEG"))
    write(tmp_path / "user/class-0/turned.png", turned("PNG"))
    write(tmp_path / "user/class-0/bad.jpg", b"bad")
    shards = ingest(tmp_path, asked)
    images = shown(shards)
    sizes = {name: Image.open(io.BytesIO(data)).size for name, (_, data) in images.items()}
    assert sizes["class-0/large.jpg"] == (36, 24) and sizes["class-0/turned.png"] == (24, 36)
    small = "class-1/002.jpeg"
    assert images[small][1] == (tmp_path / "user" / small).read_bytes()
    assert load_manifest(shards).source.reencoded == shards.metrics["reencoded"] == 2
    assert shards.metrics["quarantined"] == 1
    difference = decode(images["class-0/large.jpg"][1]).astype(int) - np.asarray(RGB.resize((36, 24)))
    assert np.abs(difference).mean() < 6


def test_another_format_is_written_alike_by_any_workers_after_any_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK_IMAGES", 5)
    asked = folder(tmp_path, reencode={"format": "webp", "quality": 80})
    plain = ingest(tmp_path, asked, node="plain")
    assert {ext for ext, _ in shown(plain).values()} == {"webp"} and plain.metrics["reencoded"] == 12
    assert contents(ingest(tmp_path, asked, node="other", cluster=Shuffled(1))) == contents(plain)
    monkeypatch.setattr(Spool, "holds", lambda *args: False)  # as on another machine
    assert contents(ingest(tmp_path, asked, node="made again")) == contents(plain)


def test_nothing_changes_unless_it_is_asked(tmp_path):
    with pytest.raises(ValidationError, match="asks for nothing"):
        Reencode()
    for data in WHOLE.values():
        assert reencoded(data, Reencode(shorter_px=40)) is data
    assert reencoded(WHOLE["png"], Reencode(format="png")) is WHOLE["png"]
    assert load_manifest(ingest(tmp_path, folder(tmp_path))).source.reencoded == 0


def test_progress_tells_bytes_and_the_quarantine(tmp_path):
    config = folder(tmp_path)
    write(tmp_path / "user/class-0/bad.jpg", b"bad")
    ctx = make_context(tmp_path, "shards", IngestResources())
    run(IngestConfig.model_validate(config), Inputs({}), ctx)
    last = ctx.progress.updates[-1]
    assert last["note"].endswith(" MB/s, 1 quarantined") and float(last["note"].split()[0]) > 0
    assert last["images_per_second"] > 0
