"""What a format cannot hold or say is told before it is written."""

from pathlib import Path
from typing import Any

import pytest
from converting import convert, wanted
from tiny_checkpoint import commit_checkpoint
from tiny_vit import TINY, random_state, tiny

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.formats.common import format_of
from vitpipe.stages.convert.task import refuse

pytestmark = pytest.mark.usefixtures("vit_tiny")


@pytest.mark.parametrize(("formats", "changes", "reason"), [
    (("huggingface",), {"representation": 16}, "representation layer of 16"),
    (("huggingface",), {"pool": "gap"}, "pooling by gap"),
    (("huggingface",), {"variant": "R+Ti/16"}, "the hybrid R[+]Ti/16: ViTForImageClassification is a plain ViT"),
    (("huggingface", "torchvision"), {"position": "relative"}, "relative positions.*torchvision cannot hold relative"),
    (("torchvision",), {"variant": "Ti/16"}, "Ti/16: its functions are vit_b_16"),
    (("torchvision",), {"variant": {**TINY.model_dump(), "layers": 3}}, "explicit sizes"),
    (("torchvision",), {"gelu": "tanh"}, "the tanh GELU"),
    (("torchvision",), {"norm_eps": 1e-12}, "norm_eps 1e-12"),
    (("torchvision",), {"image_px": 37}, "37 px, which patches of 8 px do not divide"),
    (("torchvision",), {"variant": "R50x1"}, "the resnet R50x1"),
    (("google",), {"pool": "map"}, "google_big_vision holds one"),
    (("google_big_vision",), {"norm_eps": 1e-12}, "norm_eps 1e-12"),
    (("google_big_vision",), {"variant": "R50x1"}, "take google"),
    (("timm",), {"variant": "R152x1"}, "the ResNet R152x1: its functions build R50x1"),
    (("onnx",), {"classes": 0}, "an encoder without a head"),
])  # fmt: skip
def test_what_a_format_cannot_hold_is_refused(
    formats: tuple[Format, ...], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=rf"cannot hold .*{reason}"):
        refuse(formats, tiny(**changes))


def test_a_refusal_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(gelu="tanh")), wanted("native", "torchvision"))
    assert not list((tmp_path / "store" / "test" / "weights" / "a1").glob("*/*"))


def test_what_a_google_file_cannot_say_is_said_beside_it(tmp_path: Path) -> None:
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted("google")).read_json("parity.json")
    assert "erf" in proofs["google"]["note"]
    assert format_of("google").unsaid(tiny(gelu="tanh")) is None and format_of("timm").unsaid(tiny()) is None


def test_numbers_beyond_fp16_are_refused(tmp_path: Path) -> None:
    state = random_state(tiny())
    state["head.bias"][2] = -7e4
    with pytest.raises(StageError, match=r"head\.bias to fp16.*up to 70000"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(), state), wanted("native", dtype="fp16"))
