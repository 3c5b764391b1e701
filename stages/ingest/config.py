"""What an ingest takes: one source of images, and how it is cut into splits and shards. No torch."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vitpipe.stages.bounds import AnySeed, Bytes, Images, ImagesOrNone, Share, Side
from vitpipe.stages.ingest.sources.kinds import AnySource, ingest_defaults
from vitpipe.stages.settings import Settings, TaskResources

SHARD_BYTES = 256_000_000
"""Default size of a shard: large enough to stream at full speed, small enough to place and retry."""

_SPLIT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Near(Settings):
    """Images that look alike: resized, compressed anew, a little brighter, trimmed at the edges."""

    hamming: int = Field(ge=0, le=12)
    """Bits of the 64 of a perceptual hash in which copies may differ. 4 finds copies that are resized, compressed anew,
    brighter, or trimmed by up to 2 % at any side: each image is looked at whole and trimmed. A second look of 192 bits
    decides. Images without structure (one colour) are left to `exact`. Where very many may look alike, as blank pages
    do, each is compared with the first 10,000 of them that are kept; an event and the report say for how many images
    there were more."""


class Deduplicate(Settings):
    """Which images count as the same; of equals the first by name is kept, the others stand in duplicates.jsonl."""

    exact: bool = True
    """Equal bytes, or equal decoded pixels."""
    near: Near | None = None
    """Also leave out what looks like an image that is kept, or like a test image of the `exclude` sets."""


class Reencode(Settings):
    """Other bytes than the source has: upright RGB without metadata, counted in the manifest."""

    shorter_px: Side | None = None
    """Shrink what is larger until its shorter side has so many pixels; nothing is enlarged."""
    format: Literal["jpeg", "png", "webp"] | None = None
    """Of all images; left out, each keeps its own."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of JPEG and WebP."""

    @property
    def ext(self) -> str | None:
        """Member name of the format."""
        return "jpg" if self.format == "jpeg" else self.format

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Reencode":
        if self.shorter_px is None and self.format is None:
            raise ValueError("reencode asks for nothing: give shorter_px, format, or both")
        return self


class Budget(Settings):
    """How many bad images are bearable: the larger of the two."""

    images: ImagesOrNone = 10
    """A number of images."""
    fraction: float = Field(default=0.001, ge=0, le=1)
    """A share of all images."""


class IngestConfig(Settings):
    """Everything that decides which bytes end in which shard."""

    source: AnySource
    """Where images come from: `kind` is folder, webdataset, parquet, class_tars, benchmark, digits or
    glyphs."""
    images_per_shard: Images | None = None
    """Images of a full shard; left out, shards are cut by `shard_bytes`."""
    shard_bytes: Bytes | None = None
    """Bytes of a full shard; left out, 256 MB, unless `images_per_shard` decides."""
    splits: dict[str, Share] | Literal["folders", "official"] = Field(default={"train": 1.0}, validate_default=True)
    """Share of each split, cut by content hash so that equal images never straddle; or `folders`: `root/split/class/`,
    where stages look for splits called `train`, `val` and `test` (one of them must be there; folders of other names are
    splits of that name, which a node takes when it names them); or `official`: a benchmark's own, its default,
    or those of the processed ImageNet-21k. The digits are cut 0.8 train, 0.2 test unless said otherwise."""
    shuffle_seed: AnySeed = 0
    """Seed of the global order in which images are written."""
    deduplicate: Deduplicate = Deduplicate()
    """What to do about equal images. A benchmark keeps them unless said otherwise: its test set is what it is."""
    check: Literal["decode", "structure"] = "decode"
    """decode: every image is decoded, and equal pixels are the same image. structure: only that files are whole and of
    a kind that is read, many times faster, for a source that was decoded before; equal bytes are the same image, and
    flipped bits in the pixels of a JPEG or WebP stay unseen until training."""
    reencode: Reencode | None = None
    """Change images on their way; left out, bytes pass as they are."""
    on_bad_image: Literal["quarantine", "fail"] = "quarantine"
    """Set a damaged image aside with its reason, or stop at the first."""
    bad_image_budget: ImagesOrNone | Annotated[float, Field(ge=0, lt=1)] | Budget = Budget()
    """Bad images beyond this fail the stage: a number of images, a share below 1, or `{images, fraction}` of which the
    larger counts."""
    restart_intervals: bool = False
    """Write JPEGs anew with restart markers, without loss: training crops then decode only the segments they need.
    Needs the reader's C extension (`vitpipe doctor`). The shards' bytes then depend on the version of libjpeg too."""

    @model_validator(mode="before")
    @classmethod
    def _source_defaults(cls, fields: Any) -> Any:
        source = fields.get("source") if isinstance(fields, dict) else None
        kind = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
        return fields if source is None else {**ingest_defaults(kind), **fields}

    @field_validator("splits")
    @classmethod
    def _splits_are_whole(cls, splits: dict[str, float] | str) -> dict[str, float] | str:
        if isinstance(splits, str):
            return splits
        for name in splits:
            if not _SPLIT_NAME.fullmatch(name):
                raise ValueError(f"split name {name!r} does not match {_SPLIT_NAME.pattern}")
        total = sum(splits.values())
        if abs(total - 1) > 1e-6:
            told = f"{' + '.join(map(str, splits.values()))} = {total:g}"
            raise ValueError(f"the shares of splits must add up to 1: {told}")
        return splits

    @field_validator("restart_intervals")
    @classmethod
    def _extension_is_there(cls, wanted: bool) -> bool:
        if wanted:
            from vitpipe.stages.images.native import compilation  # Pillow, only where it is needed

            if compilation.compiled_extension() is None:
                raise ValueError(f"restart_intervals needs the reader's C extension, not built here. {compilation.DO}")
        return wanted

    @model_validator(mode="after")
    def _fields_agree(self) -> "IngestConfig":
        if self.images_per_shard is not None and self.shard_bytes is not None:
            raise ValueError("give images_per_shard or shard_bytes, not both")
        self.source.check_splits(self.splits)
        return self

    def bad_images_allowed(self, num_images: int) -> int:
        """How many bad images of `num_images` are bearable."""
        budget = self.bad_image_budget
        if isinstance(budget, Budget):
            return max(budget.images, int(budget.fraction * num_images))
        return budget if isinstance(budget, int) else int(budget * num_images)


def check_inputs(config: IngestConfig, given: Mapping[str, int]) -> list[str]:
    """What is wrong between the config and the names of the inputs; asked by `validate`."""
    if config.check == "structure" and "exclude" in given:
        return ["check: structure decodes nothing, and `exclude` compares decoded pixels: choose check: decode"]
    return []


class IngestResources(TaskResources):
    """Where the work of an ingest runs; no GPUs by default. Never changes a byte of the shards."""

    gpus_per_task: float | None = Field(default=0.0, ge=0, le=1_024)
    """Ingest needs none."""
    trust_source: bool = False
    """Do not compare the source with what was ingested, at every plan and run: for sources too large to list. Other
    files under the same names then go unseen."""
