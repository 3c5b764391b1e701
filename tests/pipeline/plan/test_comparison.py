"""What tells nodes of several runs apart, of sides that are made up."""

from vitpipe.pipeline.plan.comparison import Side, _distinctions
from vitpipe.pipeline.plan.fingerprint import MISSING


def a_side(fingerprint: str, made: str, value: int = 1) -> Side:
    recipe = {"stage": "make", "config": {"value": value}}
    return Side(recipe, fingerprint, recipe["config"], {}, made, frozenset())  # type: ignore[arg-type]


def test_each_run_shows_the_data_that_it_made_itself() -> None:
    """One recipe gave two sets; a third run, of another recipe, has data of its own, a fourth none."""
    sides = [a_side("f", "aaaa"), a_side("f", "bbbb"), a_side("g", "cccc", 2), a_side("h", "", 3), None]
    found = {one.path: one.values for one in _distinctions("images", sides, inputs=False)}
    assert found[("data",)] == ("aaaa", "bbbb", "cccc", MISSING, MISSING)
    assert found[("config", "value")] == (1, 1, 2, 3, MISSING)


def test_data_is_no_field_where_the_recipes_differ() -> None:
    found = _distinctions("images", [a_side("f", "aaaa"), a_side("g", "cccc", 2)], inputs=False)
    assert [one.path for one in found] == [("config", "value")]
