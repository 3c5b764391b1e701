"""Draws that depend on what is drawn alone: the same on any machine, in any order. No torch."""

import hashlib
from collections.abc import Iterable, Iterator


def unit_hash(*parts: str | int) -> float:
    """A number in [0, 1) that depends on `parts` alone; names may hold undecodable bytes."""
    text = "\0".join(str(part) for part in parts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def unit_hashes(word: str, seed: int, names: Iterable[str]) -> Iterator[float]:
    """`unit_hash(word, seed, name)` of each name."""
    begun = hashlib.sha256(f"{word}\0{seed}\0".encode())
    for name in names:
        whole = begun.copy()
        whole.update(name.encode("utf-8", "surrogateescape"))
        yield int.from_bytes(whole.digest()[:8], "big") / 2**64
