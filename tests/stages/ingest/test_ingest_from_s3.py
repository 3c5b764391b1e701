"""A folder that is a prefix of a bucket."""

import pytest
from photos import contents, encoded, ingest, photo_folder, picture

from infra.errors import UsageError
from infra.storage.opening import open_store

pytestmark = pytest.mark.s3


def test_a_prefix_gives_what_the_same_folder_gives(s3_uri, tmp_path):
    root = photo_folder(tmp_path / "user", per_class=4)
    store = open_store(f"{s3_uri}/photos")
    for path in sorted(root.rglob("*.png")):
        store.upload(path, path.relative_to(root).as_posix())
    there = {"source": {"kind": "folder", "root": f"{s3_uri}/photos"}, "images_per_shard": 5}
    here = {**there, "source": {"kind": "folder", "root": str(root)}}
    assert contents(ingest(tmp_path, there, node="there")) == contents(ingest(tmp_path, here, node="here"))


def test_an_empty_prefix_is_told(s3_uri, tmp_path):
    with pytest.raises(UsageError, match="No object lies below it"):
        ingest(tmp_path, {"source": {"kind": "folder", "root": f"{s3_uri}/nothing"}})
    open_store(s3_uri).write("loose/a.png", encoded(picture(0), "PNG"))
    with pytest.raises(UsageError, match=r"1 images stand outside root/class/\*: 'a.png'"):
        ingest(tmp_path, {"source": {"kind": "folder", "root": f"{s3_uri}/loose"}})
