"""Each oddity of foreign weights has one outcome: taken, said and proved by their own library, or refused in words. The
documentation's table says the same."""

from pathlib import Path

import pytest
from foreign_cases import TABLES, Case, table
from inprocess import make_context

from vitpipe.infra.errors import VitpipeError
from vitpipe.stages.convert.config import ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.weights import look
from vitpipe.stages.convert.parity import prove
from vitpipe.stages.convert.task import ProveTask

CASES = [case for cases in TABLES.values() for case in cases]
PAGE = Path(__file__).parents[3] / "docs/how-to/weights.md"


@pytest.mark.parametrize("case", CASES, ids=[case.given for case in CASES])
def test_what_becomes_of_an_input(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path / "theirs")
    heads = {} if (path / "config.json").is_file() else {"heads": 4}
    source = ForeignSource.model_validate({"path": str(path), **heads, **case.source})
    try:
        foreign = look(source, tmp_path / "scratch")
        proof = prove(ProveTask(foreign, make_context(tmp_path, "proof", ConvertResources()).task))
    except VitpipeError as error:
        assert case.is_refused and case.told.lower() in str(error).lower() and error.do, error
        return
    assert not case.is_refused, case.told
    assert proof["error"] <= 2e-5 and ("prepared" in proof) == (foreign.preparation is not None)
    is_so = case.holds(foreign) if case.holds else any(case.told in note for note in foreign.notes)
    assert is_so, foreign.notes


def test_the_documentation_says_the_same() -> None:
    found = PAGE.read_text()
    assert table() in found, f"{PAGE} has other rows; it is:\n{table()}"
