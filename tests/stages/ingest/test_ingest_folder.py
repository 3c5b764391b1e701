"""A user's folder: what goes in, what is set aside and why, and what plain webdataset reads back."""

import json

import numpy as np
import pytest
import webdataset as wds
from inprocess import make_context
from photos import contents, encoded, indexes, ingest, photo_folder, picture, write

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the collector


def folder(root, **more):
    return {"source": {"kind": "folder", "root": str(root)}, **more}


def jsonl(data: bytes):
    return [json.loads(line) for line in data.splitlines()]


def read_back(shards, tmp_path, last="cls;json"):
    """(key, pixels, label) of every image, by plain webdataset."""
    rows = []
    for entry in load_manifest(shards).shards:
        tar = shards.fetch(entry.path, tmp_path / "plain")
        data = wds.WebDataset(str(tar), shardshuffle=False).decode("pil")
        rows += list(data.to_tuple("__key__", "jpg;jpeg;png;webp", last))
    return rows


@pytest.fixture
def users_folder(tmp_path):
    """Three classes, one corrupt file, one greyscale and one CMYK JPEG."""
    root = photo_folder(tmp_path / "user", classes=3, per_class=5, form="JPEG")
    write(root / "class-0/corrupt.jpg", encoded(picture(900), "JPEG")[:200])
    write(root / "class-1/grey.jpg", encoded(picture(901).convert("L"), "JPEG"))
    write(root / "class-2/cmyk.jpg", encoded(picture(902).convert("CMYK"), "JPEG"))
    write(root / "class-2/notes.txt", b"not an image, by its name")
    return root


def test_a_users_folder_is_read_back_by_plain_webdataset(users_folder, tmp_path):
    shards = ingest(tmp_path, folder(users_folder, images_per_shard=6))
    (bad,) = jsonl(contents(shards)["quarantine.jsonl"])
    assert bad["source"] == "class-0/corrupt.jpg" and "damaged" in bad["reason"]
    rows = read_back(shards, tmp_path)
    split = Split(shards, "train", tmp_path / "cache")
    assert len(rows) == split.num_images == 17 == shards.splits["train"]
    assert [label for _, _, label in rows] == split.labels.tolist()
    sources = [source for index in indexes(split) for source in index.source]
    names = load_manifest(shards).classes
    assert [source.split("/")[0] for source in sources] == [names[label] for _, _, label in rows]
    for number, (_, image, _) in enumerate(rows):
        assert image.mode == "RGB"
        assert (np.asarray(image) == split.pixels(number)).all()
    assert len({key for key, _, _ in rows}) == 17


def test_bytes_pass_through_and_extensions_follow_the_content(tmp_path):
    root = photo_folder(tmp_path / "user", classes=1, per_class=2)
    original = write(root / "class-0/wrong.jpg", encoded(picture(50), "WEBP", lossless=True))
    shards = ingest(tmp_path, folder(root))
    split = Split(shards, "train", tmp_path / "cache")
    (index,) = indexes(split)
    row = index.source.index("class-0/wrong.jpg")
    assert index.ext[row] == "webp"
    tar = contents(shards)["train-000000.tar"]
    assert tar[index.offset[row] : index.offset[row] + index.size[row]] == original.read_bytes()


def test_events_metrics_and_progress_tell_of_the_quarantine(users_folder, tmp_path):
    ctx = make_context(tmp_path, "shards", IngestResources())
    shards = run(IngestConfig.model_validate(folder(users_folder)), Inputs({}), ctx)
    assert [text.split(":")[0] for text in ctx.events.of("quarantined")] == ["class-0/corrupt.jpg"]
    assert any("1 files that are no images" in text for text in ctx.events.of("note"))
    assert shards.metrics["quarantined"] == 1
    last = ctx.progress.updates[-1]
    assert (last["step"], last["total"], last["unit"]) == (18, 18, "images")


@pytest.mark.parametrize(
    ("more", "fails"),
    [
        ({}, False),
        ({"bad_image_budget": 1}, True),
        ({"bad_image_budget": 2}, False),
        ({"bad_image_budget": 0.1}, True),
        ({"bad_image_budget": {"images": 0, "fraction": 0.2}}, False),
        ({"on_bad_image": "fail"}, True),
    ],
)
def test_the_budget_of_bad_images(tmp_path, more, fails):
    root = photo_folder(tmp_path / "user", classes=2, per_class=5)
    for name in ("class-0/a.png", "class-1/b.png"):
        write(root / name, b"\x89PNG but not really")
    if not fails:
        assert ingest(tmp_path, folder(root, **more)).splits == {"train": 10}
        return
    with pytest.raises(StageError, match=r"2 are bad: 'class-0/a\.png': .*'class-1/b\.png'"):
        ingest(tmp_path, folder(root, **more))


def empty_class(root):
    (photo_folder(root) / "class-3").mkdir()


def class_of_texts(root):
    write(photo_folder(root) / "class-3/readme.txt", b"text")


def loose_images(root):
    write(photo_folder(root) / "loose.png", encoded(picture(1), "PNG"))


@pytest.mark.parametrize(
    ("arrange", "found"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "No file lies below it"),
        (lambda root: write(root / "a.txt", b""), "1 files, none of them an image"),
        (empty_class, "1 class folders hold no images: 'class-3'"),
        (class_of_texts, "1 class folders hold no images: 'class-3'"),
        (loose_images, r"1 images stand outside root/class/\*: 'loose.png'"),
    ],
)
def test_a_folder_that_cannot_be_meant(tmp_path, arrange, found):
    root = tmp_path / "user"
    arrange(root)
    with pytest.raises(UsageError, match=f"(?i){found}") as caught:
        ingest(tmp_path, folder(root))
    assert str(root) in str(caught.value)


def test_nothing_but_bad_images_is_a_failure(tmp_path):
    write(tmp_path / "user/class-0/a.png", b"no")
    with pytest.raises(StageError, match="none of its 1 images is left"):
        ingest(tmp_path, folder(tmp_path / "user"))


def test_splits_from_folders_and_a_leaked_test_image(tmp_path):
    root = tmp_path / "user"
    for split, first in (("train", 0), ("test", 100)):
        for number in range(6):
            write(root / split / f"class-{number % 2}" / f"{number}.png", encoded(picture(first + number), "PNG"))
    write(root / "train/class-0/leak.png", (root / "test/class-0/0.png").read_bytes())
    shards = ingest(tmp_path, folder(root, splits="folders"))
    assert shards.splits == {"test": 6, "train": 6}
    (duplicate,) = jsonl(contents(shards)["duplicates.jsonl"])
    assert duplicate["source"] == "train/class-0/leak.png" and duplicate["of"] == "test/class-0/0.png"
    assert load_manifest(shards).classes == ("class-0", "class-1")


def test_equal_bytes_and_equal_pixels_are_kept_once(tmp_path):
    root = photo_folder(tmp_path / "user", classes=2, per_class=3)
    write(root / "class-0/z-bytes.png", (root / "class-0/000.png").read_bytes())
    write(root / "class-1/z-pixels.png", encoded(picture(0), "PNG", compress_level=0))
    shards = ingest(tmp_path, folder(root))
    rows = jsonl(contents(shards)["duplicates.jsonl"])
    assert [(row["source"], row["of"], row["equal"], row["same_labels"]) for row in rows] == [
        ("class-0/z-bytes.png", "class-0/000.png", "bytes", True),
        ("class-1/z-pixels.png", "class-0/000.png", "pixels", False),
    ]
    assert shards.splits == {"train": 6}
    kept_all = ingest(tmp_path, folder(root, deduplicate={"exact": False}), node="all")
    assert kept_all.splits == {"train": 8}


def test_equal_images_never_straddle_splits(tmp_path):
    root = tmp_path / "user"
    for number in range(20):
        for copy, level in enumerate((0, 9)):
            write(root / f"class-{copy}/{number}.png", encoded(picture(number), "PNG", compress_level=level))
    config = folder(root, splits={"train": 0.5, "test": 0.5}, deduplicate={"exact": False})
    shards = ingest(tmp_path, config)
    per_split = [
        {content for index in indexes(Split(shards, split, tmp_path / "cache")) for content in index.pixels_sha256}
        for split in ("train", "test")
    ]
    assert sum(shards.splits.values()) == 40
    assert all(per_split) and not per_split[0] & per_split[1]


def test_excluded_test_images_are_left_out(tmp_path):
    held_out = ingest(tmp_path, folder(photo_folder(tmp_path / "held"), splits={"test": 1.0}), node="held")
    root = photo_folder(tmp_path / "user", per_class=10)  # its first 24 pictures are the held-out ones
    shards = ingest(tmp_path, folder(root), exclude=[held_out])
    assert shards.splits == {"train": 6}
    rows = jsonl(contents(shards)["duplicates.jsonl"])
    assert len(rows) == 24 and all(row["of"].startswith(held_out.uri + "#test-") for row in rows)


def test_limit_and_subset_are_nested(tmp_path):
    root = photo_folder(tmp_path / "user", per_class=20)

    def names(node, **part):
        config = {"source": {"kind": "folder", "root": str(root), **part}}
        split = Split(ingest(tmp_path, config, node=node), "train", tmp_path / "cache")
        return {source for index in indexes(split) for source in index.source}

    few, more = names("few", limit=5), names("more", limit=15)
    assert len(few) == 5 and len(more) == 15 and few < more
    fifth = names("fifth", subset={"fraction": 0.2})
    half = names("half", subset={"fraction": 0.5})
    assert fifth < half and 0 < len(fifth) < len(half) < 60
    assert names("other", subset={"fraction": 0.5, "seed": 1}) != half


def test_decode_agrees_with_the_first_look(users_folder, tmp_path):
    split = Split(ingest(tmp_path, folder(users_folder)), "train", tmp_path / "cache")
    (index,) = indexes(split)
    for row, source in enumerate(index.source):
        pixels = decode((users_folder / source).read_bytes())
        assert pixels.shape == (index.height[row], index.width[row], 3)
