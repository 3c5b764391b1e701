"""Small pictures in every odd form, folders of them, and their ingestion in this process."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from inprocess import InProcessCluster, commit, make_context
from PIL import Image

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.contract import Cluster, Inputs
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import load_index
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run


def picture(number: int, width: int = 20, height: int = 16) -> Image.Image:
    """An RGB picture that no other number has."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def photo_folder(root: Path, classes: int = 3, per_class: int = 8, form: str = "PNG") -> Path:
    """`root/class-k/n.ext`, every picture another one."""
    for number in range(classes * per_class):
        name = f"class-{number % classes}/{number // classes:03d}.{form.lower()}"
        write(root / name, encoded(picture(number), form))
    return root


def indexes(split: Split) -> list[ShardIndex]:
    """The whole indexes of a split's shards, in order."""
    pairs = zip(split.owners, split.entries, strict=True)
    return [load_index(split.sets[owner], entry) for owner, entry in pairs]


def ingest(
    tmp_path: Path,
    config: dict[str, Any],
    node: str = "shards",
    cluster: Cluster | None = None,
    attempt: str = "a1",
    earlier: tuple[str, ...] = (),
    **inputs: Any,
) -> ShardSet:
    """Run the stage and commit it: the artifact as the next stage receives it."""
    ctx = make_context(
        tmp_path, node, IngestResources(), cluster or InProcessCluster(), attempt=attempt, earlier=earlier
    )
    shards = run(IngestConfig.model_validate(config), Inputs(inputs), ctx)
    found = commit(ctx, shards, stage="ingest", config=config)
    assert isinstance(found, ShardSet)
    return found


def contents(shards: ShardSet) -> dict[str, bytes]:
    """All files of an artifact by name."""
    store = shards.store()
    return {file.path: store.read(file.at) for file in shards.files}


def read_split(shards: ShardSet, cache: Path) -> None:
    """Decode every training image; here, free of torch, for tests that do it in new processes."""
    split = Split(shards, "train", cache)
    for number in range(split.num_images):
        split.pixels(number)
