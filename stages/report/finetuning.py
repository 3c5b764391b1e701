"""How fine-tunings went: the training loss of every step, from the pieces that their test trials left. No torch."""

import json
import statistics
from collections.abc import Mapping, Sequence

from vitpipe.stages.artifacts import Score
from vitpipe.stages.report.charts import Curve
from vitpipe.stages.report.results import percent


def finetuning_curves(scores: Sequence[Score], nodes: Mapping[str, str]) -> list[Curve]:
    """Draw one curve a fine-tuned score: the mean over its seeds, each of which took the same steps."""
    drawn = []
    for score in scores:
        trials = [file.path for file in score.files if file.path.startswith("trials/test-")]
        losses = [json.loads(score.read(path))["losses"] for path in sorted(trials)]
        if losses and min(map(len, losses)) > 1:
            mean = [statistics.fmean(step) for step in zip(*losses, strict=False)]
            seeds = f"mean of {len(losses)} seeds, " if len(losses) > 1 else ""
            then = f"{seeds}then {percent(score.value)} of the test images"
            named = f"{nodes.get(score.uri, score.uri)}: training loss ({then})"
            drawn.append(Curve.draw(named, "", range(1, len(mean) + 1), mean, smooth=True))
    return drawn
