"""`init --small`: what it writes is planned in minutes for 200 photographs, doubted in nothing, and keeps its data."""

import json
from pathlib import Path

import pytest
from photos import photo_folder

from vitpipe.pipeline.cli import main as cli

MINUTES = 10 / 60


def test_two_hundred_photographs_are_minutes_and_another_rate_leaves_the_data_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photo_folder(tmp_path / "images", classes=4, per_class=50)
    assert cli.invoke(["init", "--small", "my.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "small"

    def plan(*args: str) -> dict[str, dict[str, object]]:
        assert cli.invoke(["plan", "my.yaml", "--json", *args]) == 0
        found = json.loads(capsys.readouterr().out)["nodes"]
        assert 0 < sum(one["estimate"].get("hours", 0) for one in found) < MINUTES
        return {one["node"]: one for one in found}

    nodes = plan()
    assert {one["action"] for one in nodes.values()} == {"run"}
    assert nodes["backbone"]["estimate"]["notes"] == []  # type: ignore[index]
    assert nodes["accuracy"]["estimate"]["images"] == 40, "val is scored"  # type: ignore[index]
    plan("name=small-b", "nodes.backbone.config.optimizer.peak_lr=3e-4")


@pytest.mark.parametrize(("args", "code"), [(("--preset", "small"), 0), (("--small", "--preset", "transfer"), 2)])
def test_small_is_one_preset(args: tuple[str, ...], code: int, tmp_path: Path) -> None:
    assert cli.invoke(["init", str(tmp_path / "my.yaml"), *args]) == code
    assert (tmp_path / "my.yaml").exists() == (code == 0)
