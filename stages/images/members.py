"""The members of a shard's tar beside an image: its label, and what else the source had of it. No torch.

Knows no tar. webdataset decodes both kinds by itself: `cls` to a number, `json` to what was dumped.
"""

import json
from collections.abc import Sequence


def label_members(labels: Sequence[int], multi_label: bool) -> tuple[tuple[str, bytes], ...]:
    """Encode a label as extension and bytes: `cls` with the one class, or `json` with all of them under `labels`.

    None where the image has no class: its whole set has none.
    """
    if not labels:
        return ()
    if multi_label:
        return (("json", json.dumps({"labels": list(labels)}).encode()),)
    return (("cls", str(labels[0]).encode()),)
