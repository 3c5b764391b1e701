"""A folder that is a prefix of a bucket."""

import pytest
from photos import contents, encoded, ingest, photo_folder, picture, write

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.drift import look
from vitpipe.stages.record import read_record

pytestmark = pytest.mark.s3


def test_a_prefix_gives_what_the_same_folder_gives(s3_uri, tmp_path):
    root = photo_folder(tmp_path / "user", per_class=4)
    write(root / "class-1/damaged.jpg", encoded(picture(90), "JPEG")[:25] + b"nothing that Pillow knows")
    write(root / "class-1/.hidden.png", encoded(picture(91), "PNG"))
    write(root / ".hidden/a.png", encoded(picture(92), "PNG"))
    write(root / "class-1-b/a.png", encoded(picture(93), "PNG"))
    store = open_store(f"{s3_uri}/photos")
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        store.upload(path, path.relative_to(root).as_posix())
    there = {"source": {"kind": "folder", "root": f"{s3_uri}/photos"}, "images_per_shard": 5}
    here = {**there, "source": {"kind": "folder", "root": str(root)}}
    found = contents(ingest(tmp_path, there, node="there"))
    assert contents(ingest(tmp_path, here, node="here")) == found
    assert found["quarantine.jsonl"].count(b"\n") == 1 and b"hidden" not in b"".join(found.values())


def test_what_became_of_a_prefix(s3_uri, tmp_path):
    store = open_store(f"{s3_uri}/photos")
    for number in range(5):
        store.write(f"class-{number % 2}/{number}.png", encoded(picture(number), "PNG"))
    there = {"source": {"kind": "folder", "root": f"{s3_uri}/photos"}}
    shards, config = ingest(tmp_path, there), IngestConfig.model_validate(there)

    record, _ = read_record(shards.uri)

    def seen(digests=False):
        return look(config, IngestResources(), shards, record, digests)

    assert seen().note == f"the source is as it was ingested, 5 images of {s3_uri}/photos"
    data = bytearray(store.read("class-1/3.png"))
    data[-1] ^= 1
    store.write("class-1/3.png", bytes(data))
    assert not seen().changes and "1 of 5 images" in seen().note and seen().is_loud
    assert "1 changed of 5 images" in seen(digests=True).changes[0]
    store.write("class-0/more.png", encoded(picture(9), "PNG"))
    store.delete("class-1/1.png")
    assert "1 added, 1 gone, 0 changed of 5 images" in seen().changes[0]
    for entry in list(store.list()):
        store.delete(entry.path)
    assert not seen().changes and "not looked at" in seen().note


def test_an_empty_prefix_is_told(s3_uri, tmp_path):
    with pytest.raises(UsageError, match="no object lies below it"):
        ingest(tmp_path, {"source": {"kind": "folder", "root": f"{s3_uri}/nothing"}})
    open_store(s3_uri).write("loose/a.png", encoded(picture(0), "PNG"))
    with pytest.raises(UsageError, match=r"1 images stand outside root/class/\*: 'a.png'"):
        ingest(tmp_path, {"source": {"kind": "folder", "root": f"{s3_uri}/loose"}})
