"""Milliseconds that one core takes for a training image: decoded, cropped, augmented. No torch.

Constants are fitted to `python -m tests.benchmarks.planned_images` and are those of one quiet core of an AMD EPYC of
Zen 5, which docs/runs.md tells. Another core is slower or faster by `speed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OUT_PX = 224
"""Side at which augmentation was measured; its cost grows with the area."""


@dataclass(frozen=True)
class Decoding:
    """Milliseconds of one format: what each image takes, and each megapixel of the file."""

    each: float
    per_megapixel: float


DECODING: Mapping[str, Decoding] = {
    "jpeg": Decoding(0.37, 1.04),
    "png": Decoding(0.15, 5.0),
    "webp": Decoding(2.0, 4.0),
}
"""Random resized crops by our reader."""
BYTES_PER_PIXEL: Mapping[str, float] = {"jpeg": 0.25, "png": 1.2, "webp": 0.15}
"""Where the pixels of a set are not known its bytes tell them: photographs of quality 90, or without loss."""
Formats = tuple[tuple[str, float], ...]
"""Formats of a set by name, `jpeg`, `png` or `webp`, and the part of its images that each has."""
USUAL = ("jpeg", 110_000.0)
"""Format and bytes of an image that nothing is known of: ImageNet's."""
RANDAUGMENT_LAYER: Mapping[str, float] = {"torchvision": 0.04, "big_vision": 0.05, "timm": 0.04}
"""One operation, by whose RandAugment it is."""
MIXING = 0.025
"""Mixup or CutMix of one image."""
RANGED = 0.58
"""A read of one image from the store by a ranged GET, where its shard is not on the disk."""


def parts_of(counts: Mapping[str, float]) -> Formats:
    """Say which part of all images each format has; all are JPEGs where none is counted."""
    whole = sum(counts.values())
    return tuple((form, count / whole) for form, count in counts.items() if count) or ((USUAL[0], 1.0),)


@dataclass(frozen=True)
class ImageWork:
    """What is done to one image, as far as it costs time."""

    formats: Formats = ((USUAL[0], 1.0),)
    bytes: float = USUAL[1]
    out_px: int = OUT_PX
    kind: str = "torchvision"
    """Whose RandAugment."""
    layers: int = 0
    """Operations of RandAugment."""
    mixes: bool = False
    ranged: float = 0.0
    """Share of the images that are read one by one from the store."""
    pixels: float | None = None
    """Of the file; None where nobody has counted them."""

    def megapixels(self, form: str) -> float:
        """Millions of pixels of a file of this format, by its bytes where they were not counted."""
        return (self.bytes / BYTES_PER_PIXEL[form] if self.pixels is None else self.pixels) / 1e6

    def terms(self, speed: float = 1.0) -> dict[str, float]:
        """Milliseconds by name, on a core `speed` times as fast as the measured one."""
        area = (self.out_px / OUT_PX) ** 2
        found = {
            "decode": sum(part * self._decoding(form, area) for form, part in self.formats),
            "augment": self.layers * RANDAUGMENT_LAYER.get(self.kind, 0.05) * area,
            "mix": MIXING * area * self.mixes,
            "request": RANGED * self.ranged,
        }
        return {name: milliseconds / speed for name, milliseconds in found.items()}

    def _decoding(self, form: str, area: float) -> float:
        found = DECODING[form]
        return found.each * min(1.0, max(area, 0.1)) + found.per_megapixel * self.megapixels(form)

    def milliseconds(self, speed: float = 1.0) -> float:
        """All of them together."""
        return sum(self.terms(speed).values())
