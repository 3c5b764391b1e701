"""An index whose numbers no image can have is refused where it is read: nothing behind it would notice."""

import json
from typing import Any

import pytest

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.index import ShardIndex, parse_index

SOUND = ShardIndex(
    path="t.tar", split="train", tar_bytes=10_240, sha256="0", plan_sha256="0", key=["a", "b"], source=["a", "b"],
    offset=[512, 2048], size=[100, 8192], ext=["png", "jpg"], labels=[[0], [1]], sha256s=["0", "1"],
    pixels_sha256=["0", "1"], width=[1, 20], height=[30, 4],
)  # fmt: skip


def changed(**columns: Any) -> bytes:
    return json.dumps(json.loads(SOUND.encode()) | columns).encode()


def test_what_fits_is_read() -> None:
    assert parse_index(SOUND.encode(), "t.index") == SOUND
    empty: dict[str, Any] = {name: [] for name, value in json.loads(SOUND.encode()).items() if isinstance(value, list)}
    assert parse_index(changed(**empty), "t.index").key == []


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"size": [100, 8193]}, "beyond the end"), ({"size": [-1, 5]}, "beyond the end"),
        ({"offset": [-512, 2048]}, "beyond the end"), ({"offset": [2**63 - 1, 0]}, "beyond the end"),
        ({"offset": [2**70, 0]}, "no whole number"), ({"size": [1.5, 2]}, "no whole number"),
        ({"size": [True, False]}, "no whole number"), ({"height": ["30", "4"]}, "no whole number"),
        ({"width": [[1], [20]]}, "no whole number"), ({"tar_bytes": "10240"}, "no whole number"),
        ({"width": [0, 20]}, "without pixels"), ({"height": [30, -4]}, "without pixels"),
        ({"width": [1]}, "unequal lengths"),
    ],
)  # fmt: skip
def test_what_no_image_can_have_is_damage(columns: dict[str, Any], why: str) -> None:
    with pytest.raises(IntegrityError, match=rf"Cannot read the index t\.index: it is damaged: .*{why}"):
        parse_index(changed(**columns), "t.index")
