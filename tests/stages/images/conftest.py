"""One small ingested set for all tests of the readers."""

import pytest
from photos import ingest, photo_folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """24 PNGs of three classes: 18 to train in shards of 5, 6 to test."""
    tmp_path = tmp_path_factory.mktemp("photos")
    root = photo_folder(tmp_path / "source")
    config = {"source": {"kind": "folder", "root": str(root)}, "splits": {"train": 0.7, "test": 0.3}}
    return ingest(tmp_path, {**config, "images_per_shard": 5})
