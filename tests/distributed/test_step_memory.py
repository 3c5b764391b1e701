"""The plan's memory of a rank beside what real steps took."""

from pathlib import Path

import pytest
from step_memory import Case, measured


@pytest.mark.parametrize("case", [Case("S/16", "bf16", 1, 2, ema=True, saves=True)])
def test_real_steps_take_what_was_planned_and_not_much_less(tmp_path: Path, case: Case) -> None:
    found = measured(case, tmp_path)
    assert all(one.moved for one in found)
    assert 0.75 * case.planned < max(one.bytes for one in found) < case.planned
