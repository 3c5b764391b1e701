"""Small committed artifacts for tests of the stages after ingest and pretrain, made without them.

`shards` draws images whose class shows in their colours, in the layout that ingest writes.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from inprocess import commit, make_context
from PIL import Image

from vitpipe.stages.artifacts import Artifact, Checkpoint, ShardSet, Weights
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import Manifest, ShardEntry, SourceFacts
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import TaskResources
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.native import save_native

TINY = ModelSettings(variant=Sizes(layers=2, width=32, mlp=64, heads=2, patch_px=4), image_px=16)


def shards(
    tmp_path: Path,
    name: str = "colours",
    classes: Sequence[str] = ("red", "green", "blue"),
    counts: Mapping[str, int] = {"train": 60, "test": 30},
    image_px: int = 16,
    noise: float = 90.0,
    multi_label: bool = False,
) -> ShardSet:
    """`counts` images per split, classes in turn; the more noise, the harder. Multi-label ones have the next too."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    ctx = make_context(tmp_path, name, TaskResources())
    entries, files = [], []
    for split, count in counts.items():
        path = f"{split}-000000.tar"
        labels = [place % len(classes) for place in range(count)]
        tar, index = _tar(path, split, labels, len(classes), image_px, noise, rng, multi_label)
        digest = hashlib.sha256(tar).hexdigest()
        entries.append(ShardEntry(path=path, split=split, count=count, bytes=len(tar), sha256=digest,
                                  pixels=count * image_px**2))  # fmt: skip
        files += [ctx.out.put(path, tar), ctx.out.put(entries[-1].index, index)]
    source = SourceFacts(
        kind="synthetic", listing_sha256="0" * 64, listed=sum(counts.values()), quarantined=0, duplicates=0
    )
    manifest = Manifest(classes=tuple(classes), multi_label=multi_label, shards=tuple(entries), source=source).encode()
    files.append(ctx.out.put("manifest.json", manifest))
    made = ShardSet(files=tuple(files), manifest_sha256=hashlib.sha256(manifest).hexdigest(),
                    num_classes=len(classes), splits=dict(counts), multi_label=multi_label)  # fmt: skip
    return commit(ctx, made, stage="ingest")


def weights(
    tmp_path: Path,
    name: str = "weights",
    settings: ModelSettings = TINY,
    seed: int = 0,
    classes: int = 5,
    inputs: Mapping[str, Sequence[Artifact]] | None = None,
    names: Sequence[str] | None = None,
) -> Weights:
    """Random native weights with a head of `classes`, called `names`, or else `class 0` and so on."""
    ctx = make_context(tmp_path, name, TaskResources())
    settings = settings.model_copy(update={"classes": classes})
    model = build_model(settings)
    init_weights(model, seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.head.weight)
    save_native(ctx.scratch / "native", model.state_dict(), settings)
    files = [
        ctx.out.upload(ctx.scratch / "native" / file, f"native/{file}") for file in ("model.safetensors", "model.json")
    ]
    names = [f"class {number}" for number in range(classes)] if names is None else names
    labels = {"id2label": {str(number): name for number, name in enumerate(names)}}
    files.append(ctx.out.put("labels.json", json.dumps(labels).encode()))
    made = Weights(files=tuple(files), formats=("native",), model=settings.model_dump(mode="json"))
    return commit(ctx, made, stage="convert", inputs=inputs)


def checkpoint(
    tmp_path: Path,
    name: str = "backbone",
    steps: int = 200,
    inputs: Mapping[str, Sequence[Artifact]] | None = None,
    evaluations: Sequence[dict[str, object]] = (),
    metrics: Mapping[str, float] = {},
    config: Mapping[str, object] = {},
) -> Checkpoint:
    """The outside of a pretraining: facts and metrics.jsonl, with `evaluations` evaluation.jsonl too; no tensors."""
    ctx = make_context(tmp_path, name, TaskResources())
    rng = np.random.default_rng(0)
    lines = []
    for step in range(1, steps + 1):
        loss = 5.3 * np.exp(-3 * step / steps) + 0.4 + 0.12 * rng.standard_normal()
        lr = 1e-3 * min(1, step / (0.1 * steps)) * 0.5 * (1 + np.cos(np.pi * step / steps))
        lines.append({"step": step, "samples_seen": 256 * step, "loss": loss, "loss_hex": float(loss).hex(),
                      "lr": lr, "grad_norm": 1 + abs(rng.standard_normal()), "seconds": 0.1})  # fmt: skip
    files = [ctx.out.put("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())]
    if evaluations:
        files.append(ctx.out.put("evaluation.jsonl", "".join(json.dumps(one) + "\n" for one in evaluations).encode()))
    model = TINY.model_copy(update={"classes": 5}).model_dump(mode="json")
    made = Checkpoint(files=tuple(files), metrics=dict(metrics), folder=f"step-{steps}", step=steps,
                      samples_seen=256 * steps, model=model, shards_sha256=())  # fmt: skip
    return commit(ctx, made, stage="pretrain", inputs=inputs, config=config)


def _tar(
    path: str,
    split: str,
    labels: Sequence[int],
    num_classes: int,
    image_px: int,
    noise: float,
    rng: np.random.Generator,
    multi_label: bool,
) -> tuple[bytes, bytes]:
    buffer, rows = io.BytesIO(), []
    of_images = [[label, (label + 1) % num_classes] if multi_label else [label] for label in labels]
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for place, label in enumerate(labels):
            hue = np.array([np.cos(2 * np.pi * (label / num_classes - third / 3)) for third in range(3)])
            pixels = 128 + 90 * hue + noise * rng.standard_normal((image_px, image_px, 3))
            image = _png(pixels.clip(0, 255).astype(np.uint8))
            key = f"{split}-{place:06d}"
            if multi_label:
                _member(tar, f"{key}.json", json.dumps({"labels": of_images[place]}).encode())
            else:
                _member(tar, f"{key}.cls", str(label).encode())
            offset = _member(tar, f"{key}.png", image)
            rows.append((key, offset, image))
    data = buffer.getvalue()
    index = ShardIndex(
        path=path, split=split, tar_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), plan_sha256="0" * 64,
        key=[row[0] for row in rows], source=[row[0] for row in rows], offset=[row[1] for row in rows],
        size=[len(row[2]) for row in rows], ext=["png"] * len(rows), labels=of_images,
        sha256s=[hashlib.sha256(row[2]).hexdigest() for row in rows], pixels_sha256=["0" * 64] * len(rows),
        width=[image_px] * len(rows), height=[image_px] * len(rows),
    )  # fmt: skip
    return data, index.encode()


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return tar.offset - (len(data) + 511) // 512 * 512
