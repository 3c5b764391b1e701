"""What a plan learns of a conversion before anything runs, on a machine without torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError
from tiny_vit import tiny

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, check_inputs
from vitpipe.stages.convert.estimate import estimate
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.model_settings import ModelSettings

L16 = ModelSettings(variant="L/16", image_px=224, classes=1000)


def planned(config: ConvertConfig, model: ModelSettings | None) -> Estimate:
    given = Estimate(model=model.model_dump(mode="json") if model else None)
    return estimate(config, ConvertResources(), {"checkpoint": [given]}, Known())


def test_bytes_follow_from_parameters_formats_and_type() -> None:
    config = ConvertConfig(formats=("native", "timm"), dtype="bf16")
    assert planned(config, L16).bytes == 304_326_632 * 2 * 2
    assert planned(config, L16).model == L16


def test_an_unknown_model_is_said() -> None:
    assert planned(ConvertConfig(), None).notes == ("the model is not known yet",)


def test_a_plan_says_what_a_file_cannot_say() -> None:
    (note,) = planned(ConvertConfig(formats=("native", "google")), L16).notes
    assert note.startswith("google: ") and "erf" in note
    assert planned(ConvertConfig(formats=("google",)), L16.model_copy(update={"gelu": "tanh"})).notes == ()


def test_a_plan_says_what_a_format_cannot_hold() -> None:
    with pytest.raises(UsageError, match="imm cannot hold relative positions"):
        planned(ConvertConfig(formats=("timm",)), tiny(position="relative"))


@pytest.mark.parametrize("given", [frozenset(), frozenset({"checkpoint", "weights"})])
def test_there_is_exactly_one_source(given: frozenset[str]) -> None:
    assert len(check_inputs(ConvertConfig(), given)) == 1
    assert check_inputs(ConvertConfig(), frozenset({"weights"})) == []


@pytest.mark.parametrize("formats", [(), ("native", "native"), ("pickle",)])
def test_formats_that_mean_nothing_are_refused(formats: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="formats"):
        ConvertConfig.model_validate({"formats": formats})


def test_planning_imports_no_torch() -> None:
    modules = ", ".join(f"vitpipe.stages.{name}" for name in ("convert.run", "convert.estimate", "vit.flops"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
