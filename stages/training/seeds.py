"""Keys for random numbers: the same parts give the same key on any machine, and nothing else does.

Knows no generator: torch, numpy and Python are seeded with the key by who draws.
"""

import hashlib
import json


def key(*parts: str | int) -> int:
    """Hash what names a draw, e.g. `key("dropout", seed, step, micro_batch)`, to an unsigned 64-bit number."""
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
