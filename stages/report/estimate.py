"""What a report will cost: next to nothing."""

from collections.abc import Mapping, Sequence

from stages.artifacts import Artifact
from stages.contract import Estimate, Known
from stages.report.config import ReportConfig, ReportResources


def estimate(
    config: ReportConfig,
    resources: ReportResources,
    inputs: Mapping[str, Sequence[Artifact | Estimate]],
    known: Known,
) -> Estimate:
    """A page of a few megabytes, mostly sample images, within a minute."""
    return Estimate(bytes=4_000_000, hours=0.5 / 60)
