"""The seal of a small JSON file: SHA-256 of its own canonical content, in the file itself as `sha256`.

Whoever reads it can tell a changed bit without asking anyone. Knows nothing of what is sealed.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


def seal_of(content: Mapping[str, Any]) -> str:
    """The seal that belongs to this content; one that is in it already does not count."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> bytes:
    """The bytes of a file that holds this content and its seal, always the same ones."""
    return json.dumps({**content, SEAL: seal_of(content)}, indent=1).encode()


def broken(data: bytes, fields: Mapping[str, Any]) -> str | None:
    """How a file that `sealed` wrote, and `fields` were read from, is no longer that file; None while it is."""
    if fields.get(SEAL) != seal_of(fields):
        return "its content and its seal do not agree"
    return None if data == sealed(fields) else "its bytes were changed after it was sealed"
