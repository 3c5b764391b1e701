"""A folder that is a prefix of a bucket."""

import pytest
from photos import contents, encoded, ingest, photo_folder, picture, write

from infra.errors import UsageError
from infra.storage.opening import open_store

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


def test_an_empty_prefix_is_told(s3_uri, tmp_path):
    with pytest.raises(UsageError, match="No object lies below it"):
        ingest(tmp_path, {"source": {"kind": "folder", "root": f"{s3_uri}/nothing"}})
    open_store(s3_uri).write("loose/a.png", encoded(picture(0), "PNG"))
    with pytest.raises(UsageError, match=r"1 images stand outside root/class/\*: 'a.png'"):
        ingest(tmp_path, {"source": {"kind": "folder", "root": f"{s3_uri}/loose"}})
