"""An image that is left out for another, and the order in which the first of two alike is kept. No torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vitpipe.stages.ingest.look.image import Image


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An image left out because it equals another."""

    source: str
    of: str
    """The name of the image kept, or `URI#key` of an image of an excluded set."""
    equal: str
    """`bytes`, `pixels` or `near`."""
    same_labels: bool
    distance: int | None = None
    """Bits of 64 in which the first looks of near ones differ."""
    second: int | None = None
    """Bits of 192 in which the second looks differ."""

    def row(self) -> dict[str, Any]:
        """As it stands in duplicates.jsonl."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def counted(duplicates: Sequence[Duplicate]) -> dict[str, Any]:
    """What a part's facts say of them: how many by what is equal, are test images of others, bear other classes."""
    return {
        "kinds": Counter(one.equal for one in duplicates),
        "held_out": sum("://" in one.of for one in duplicates),
        "contradict": sum(not one.same_labels for one in duplicates),
    }


def keep_order(image: Image) -> tuple[bool, str]:
    """The order in which the first of two alike is kept: what is outside the split `train`, then by name."""
    return image.item.split == "train", image.item.name
