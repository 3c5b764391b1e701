"""Steps that were left out because their loss or gradient is not finite: what to say of one, and how many may be.

Knows no device and no engine: that such a step changes nothing is the engine's part.
"""

from dataclasses import dataclass

from vitpipe.infra.errors import StageError

MAX_IN_A_ROW = 8
"""Steps without an update, one after another: the weights themselves are then at fault, and no batch."""
MAX_IN_ALL = 100
"""Steps of a run, its resumes included: PaLM skipped 200 to 500 batches at each of some 20 spikes by hand (Chowdhery et
al. 2022, section 5.1); more than this by itself asks for a look."""


@dataclass(frozen=True)
class Skipped:
    """Why a step made no update, the same on every rank."""

    reason: str
    """`a loss of nan` or `a gradient norm of inf with finite losses`."""
    positions: tuple[int, ...]
    """Those of the images whose loss is not finite; of the whole batch when the gradient alone is not."""

    def __str__(self) -> str:
        return f"{self.reason} for images at positions {spans(self.positions)} of the sample order"


@dataclass(frozen=True)
class Skips:
    """Steps skipped so far: in a row until now, and in all."""

    in_a_row: int = 0
    in_all: int = 0

    def after(self, step: int, skipped: Skipped | None) -> "Skips":
        """The count after one more step. StageError when that is one too many."""
        if skipped is None:
            return Skips(0, self.in_all)
        found = Skips(self.in_a_row + 1, self.in_all + 1)
        if found.in_a_row < MAX_IN_A_ROW and found.in_all < MAX_IN_ALL:
            return found
        row = found.in_a_row >= MAX_IN_A_ROW
        many = f"{found.in_a_row} steps in a row" if row else f"{found.in_all} steps of this run"
        do = "lower optimizer.peak_lr, lengthen the warm-up or set clip_norm; the last good checkpoint stands"
        raise StageError(f"make step {step}", f"{skipped}; {many} had to be skipped", do)


def spans(positions: tuple[int, ...], most: int = 8) -> str:
    """Ascending positions as `3, 8..15 and 2 more`, at most so many stretches."""
    stretches: list[list[int]] = []
    for position in positions:
        if stretches and position == stretches[-1][1] + 1:
            stretches[-1][1] = position
        else:
            stretches.append([position, position])
    text = ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in stretches[:most])
    rest = sum(last - first + 1 for first, last in stretches[most:])
    return f"{text} and {rest} more" if rest else text
