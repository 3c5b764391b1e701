"""Fine-tunings that differ in the size of their images alone: whether more pixels gained anything (section 3.2)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from vitpipe.stages.report.results import ALIKE, Gain, ScoreRow


@dataclass(frozen=True)
class Resolution:
    """The same weights on the same images at two sizes."""

    small: ScoreRow
    large: ScoreRow

    @property
    def gain(self) -> Gain:
        """The larger size compared with the smaller."""
        return Gain(self.large, self.small)

    @property
    def verdict(self) -> str:
        """Whether the larger size gained, in words."""
        gain = self.gain
        if gain.clear:
            return f"{'gains' if gain.points > 0 else 'loses'}, beyond the seeds’ spread"
        one_seed = gain.pretrained.std is None
        return "one seed: spread unknown" if one_seed else "no clear gain: within the seeds’ spread"


def resolutions(table: Sequence[ScoreRow]) -> list[Resolution]:
    """Pair every two neighbouring sizes of fine-tunings that are otherwise alike."""
    groups: dict[tuple[str, ...], list[ScoreRow]] = {}
    for row in table:
        if row.kind == "pretrained" and row.protocol.get("image_px"):
            alike = [str(row.protocol.get(name)) for name in ("weights", *ALIKE) if name != "image_px"]
            groups.setdefault((row.benchmark, *alike), []).append(row)
    found = []
    for rows in groups.values():
        by_size = {row.protocol["image_px"]: row for row in rows}
        sizes = sorted(by_size)
        found += [Resolution(by_size[one], by_size[other]) for one, other in itertools.pairwise(sizes)]
    return found
