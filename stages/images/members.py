"""The member of a shard's tar that holds an image's label. No torch.

Knows no tar. webdataset decodes both kinds by itself: `cls` to a number, `json` to what was dumped.
"""

import json
from collections.abc import Sequence


def label_member(labels: Sequence[int], multi_label: bool) -> tuple[str, bytes]:
    """Encode a label as extension and bytes: `cls` with the one class, or `json` with all of them under `labels`."""
    if multi_label:
        return "json", json.dumps({"labels": list(labels)}).encode()
    return "cls", str(labels[0]).encode()
