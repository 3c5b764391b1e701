"""ImageNet's thousand classes: WordNet ids in the order of their numbers, and the words of each. No torch.

`wordnet.csv` says where they come from. Official files that have numbers alone (ReaL, ImageNet-V2) count these.
"""

import functools
from collections.abc import Mapping
from pathlib import Path


@functools.cache
def words_by_id() -> Mapping[str, str]:
    """Read `n01440764` -> `tench, Tinca tinca` for all of them, in the order of the class numbers."""
    lines = Path(__file__).with_name("wordnet.csv").read_text(encoding="utf-8").splitlines()
    return {line[:9]: line[10:] for line in lines if not line.startswith("#")}


def imagenet_ids() -> tuple[str, ...]:
    """List the WordNet ids in the order of the class numbers, which is that of their digits."""
    return tuple(words_by_id())


def with_words(name: str) -> str:
    """Write a class's name with the first of its words beside it: `n01440764 (tench)`; any other name as it is."""
    words = words_by_id().get(name, "")
    return f"{name} ({words.partition(', ')[0]})" if words else name


def ids_of_words(known: Mapping[int, str]) -> dict[int, str]:
    """Name the outputs of a head by WordNet ids where it calls each of ImageNet's classes by words of its synset.

    Empty where it does not. A word alone would not do: two classes are cranes. So each has to stand at its number.
    """
    ids = imagenet_ids()
    if sorted(known) != list(range(len(ids))):
        return {}
    every = all(_is_called(words, known[number]) for number, words in enumerate(words_by_id().values()))
    return dict(enumerate(ids)) if every else {}


def _is_called(words: str, name: str) -> bool:
    """Whether a name has one of the synset's words in it, whatever explains it: torchvision writes `crane bird`."""
    said = _parts(name)
    return any(_parts(word) <= said for word in words.split(", "))


def _parts(words: str) -> set[str]:
    return set(words.casefold().replace(",", " ").replace("_", " ").split())
