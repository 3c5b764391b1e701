"""What the numbers of a training allow and may be a slip: said in a plan, refused nowhere. Knows no stage, no torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vitpipe.stages.settings import Duration

LOST = 0.1
"""Share of the images asked for that rounding to whole steps may drop in silence."""
SHORTENED = 0.25
"""Share of a warm-up that rounding may take."""
SCALES_FROM = 2048
"""Images of a step above which rates grow with the batch (Goyal et al. 2017: 0.1 for each 256 images, to 8192)."""
FEWER_HORIZONS = 5
"""How often the horizon of an average that is proposed fits into the run."""


@dataclass(frozen=True)
class Training:
    """One training, its images counted."""

    batch_images: int
    num_images: int
    """Images of an epoch."""
    total: Duration
    total_steps: int
    warmup: Duration | None
    """As stated; None where a default stands for it."""
    warmup_steps: int
    rates: tuple[float, ...]
    """Peak learning rates, of a sweep several."""
    optimizer: str
    usual_rates: tuple[float, float] | None
    """What the optimiser is used with; None where nobody has said."""
    decay: float | None
    """Of the running average of weights, where there is one."""
    multiple: int = 1
    """What a batch must be a multiple of."""


def doubts(training: Training) -> list[str]:
    """One sentence for each."""
    return [*_length(training), *_warmup(training), *_rates(training), *_batch(training), *_average(training)]


def _length(training: Training) -> Iterator[str]:
    batch, steps, whole = training.batch_images, training.total_steps, training.num_images
    asked = _steps(training.total, training)
    if asked - steps > LOST * asked:
        taken = f"{asked:.1f} steps of {batch:,} images: {steps:,} {'is' if steps == 1 else 'are'} taken"
        yield f"total {training.total} is {taken}, {round((asked - steps) * batch):,} images are dropped"
    if training.total.unit != "epochs" and steps * batch < whole:
        yield f"{steps:,} steps of {batch:,} see {steps * batch:,} of {whole:,} training images: less than one epoch"


def _warmup(training: Training) -> Iterator[str]:
    warmup, steps, total = training.warmup, training.warmup_steps, training.total_steps
    if warmup is not None and (asked := _steps(warmup, training)) - steps > SHORTENED * asked:
        taken = f"{steps} {'is' if steps == 1 else 'are'} taken"
        yield f"warmup {warmup} is {asked:.1f} steps of {training.batch_images:,} images: {taken}"
    if steps >= total:
        yield f"the warm-up takes all {total:,} steps: the rate never reaches its peak"
    elif 2 * steps > total:
        yield f"the warm-up takes {steps:,} of {total:,} steps, more than half"


def _rates(training: Training) -> Iterator[str]:
    if training.usual_rates is None:
        return
    low, high = training.usual_rates
    high *= max(1.0, training.batch_images / SCALES_FROM)
    for rate in training.rates:
        if not low <= rate <= high:
            usual = f"what {training.optimizer} is used with, {low:g} to {high:g}"
            yield f"peak_lr {rate:g} is {'below' if rate < low else 'above'} {usual}"


def _batch(training: Training) -> Iterator[str]:
    batch, whole, multiple = training.batch_images, training.num_images, training.multiple
    if batch <= whole:
        return
    most = int(math.log2(whole / multiple)) if whole >= multiple else -1
    fit = [str(multiple * 2**power) for power in range(max(0, most - 2), most + 1)]
    choice = f"try {' or '.join(reversed(fit))}" if fit else f"no multiple of {multiple} fits: lower micro_batch too"
    yield f"batch_images {batch:,} is more than the {whole:,} training images, a step sees some twice: {choice}"


def _average(training: Training) -> Iterator[str]:
    decay, steps = training.decay, training.total_steps
    if decay is None or 1 / (1 - decay) <= steps:
        return
    fits = [one for one in (0.9999, 0.999, 0.99, 0.9) if FEWER_HORIZONS / (1 - one) <= steps]
    choice = f"try {fits[0]:g}" if fits else "leave ema out"
    left = f"{100 * decay**steps:.0f} % of it stays the weights before the first"
    yield f"ema.decay {decay:g} averages over {1 / (1 - decay):,.0f} steps, the run has {steps:,}: {left}; {choice}"


def _steps(length: Duration, training: Training) -> float:
    """A length in steps, not rounded."""
    if length.unit == "steps":
        return float(int(length.amount))
    images = length.amount * (training.num_images if length.unit == "epochs" else 1)
    return images / training.batch_images
