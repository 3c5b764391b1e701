"""Which fields of the files beside foreign weights decide what a model answers. Each that a library knows is read,
decides nothing here, or may have only the values under which the model is one of ours; a test walks the installed
libraries' classes, so that a new one is noticed. No torch.
"""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from vitpipe.infra.errors import UsageError

_NAMED = 6


@dataclass(frozen=True)
class Fields:
    """What is known of one kind of file, or of one section of it."""

    what: str
    """Its name in messages."""
    read: AbstractSet[str]
    """They decide something, and are looked at."""
    idle: AbstractSet[str]
    """They decide nothing of an answer: how it was trained, where it was published, how a library computes it."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Their values under which the model is one of ours; with any other it is another function."""

    @property
    def known(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.read) | frozenset(self.idle) | frozenset(self.only)

    def check(self, said: Mapping[str, Any], asked: str) -> tuple[str, ...]:
        """A note of fields that no list has, as no library reads them. UsageError for values of another function."""
        for name, values in self.only.items():
            if name in said and not any(_same(said[name], value) for value in values):
                ours = " or ".join(json.dumps(value) for value in values)
                found = f"its {self.what} says {name} {json.dumps(said[name])}; of the models here it is {ours}"
                raise UsageError(asked, found, "it would be another function: it cannot be converted")
        unknown = sorted(map(str, said.keys() - self.known))
        if not unknown:
            return ()
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        named = f"{', '.join(unknown[:_NAMED])}{more}"
        return (f"fields of its {self.what} that its library does not have were not looked at: {named}",)

    def refuse_unknown(self, said: Mapping[str, Any], asked: str) -> None:
        """UsageError for a field that no list has, where each one is an argument that builds the model."""
        if unknown := sorted(map(str, said.keys() - self.known)):
            found = f"its {self.what} says {unknown[0]} {json.dumps(said[unknown[0]])}, which is not known here"
            raise UsageError(asked, found, "it would be another function: it cannot be converted")


def _same(one: Any, other: Any) -> bool:
    """As JSON: true is not 1, and 3 is 3.0."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
