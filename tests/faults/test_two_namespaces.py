"""Two drivers that no lock keeps apart and that cannot see each other's processes: one holds the run, every time."""

from rivals import holders, rivals


def test_of_two_simultaneous_starts_one_holds(tmp_path):
    with rivals(tmp_path) as pair:
        for number in range(100):
            assert holders(pair, "generations", tmp_path / f"run{number}") == [8]
        counter = tmp_path / "count"
        counter.mkdir()
        (counter / "counter").write_text("0")
        for rival in pair:
            rival.ask("count", store="generations", folder=str(counter), times=100)
        assert [rival.answer() for rival in pair] == [0, 0]
        assert (counter / "counter").read_text() == "600", "every confirmed swap stands"


def test_under_a_lock_that_does_nothing_both_hold(tmp_path):
    """The negative control: swaps as they were before."""
    with rivals(tmp_path) as pair:
        found = [holders(pair, "locked", tmp_path / f"run{number}") for number in range(16)]
    assert [8, 8] in found
