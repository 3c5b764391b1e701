"""The logs of attempts, `{node}/{attempt}/logs/*`, as the store has them. Knows their names, not who writes them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import NotFound
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.contents import NodeContents, list_run

_LOG = re.compile(r"a(?P<fence>\d+)(?:\.(?P<restart>\d+))?/logs/[^/]+")

_LOGS_AT_ONCE = 4
"""Few, because what is read of them is held in memory."""


@dataclass(frozen=True)
class LogPiece:
    """What a log gained since it was last read."""

    node: str
    path: str
    """Below the node's folder: `a3/logs/driver.log`."""
    text: str


@dataclass
class Logs:
    """A reader of logs that goes on where it stopped."""

    run: Store
    read: dict[tuple[str, str], int] = field(default_factory=dict)
    """Bytes read so far, by node and path."""

    def gained(self, nodes: tuple[str, ...]) -> Iterator[LogPiece]:
        """Yield what is new in the newest attempt of each node, restarts of its gang included."""
        seen = list_run(self.run, nodes[0] if len(nodes) == 1 else "", brief=True)
        logs = [(node, path, size) for node in nodes for path, size in _newest(seen.of(node))]
        grown = [(node, path) for node, path, size in logs if size > self.read.get((node, path), 0)]
        texts = answers(lambda log: _text(self.run.child(log[0]), log[1], self.read.get(log, 0)), grown, _LOGS_AT_ONCE)
        for (node, path), text in zip(grown, texts, strict=True):
            if text:
                self.read[node, path] = self.read.get((node, path), 0) + len(text)
                yield LogPiece(node, path, text.decode(errors="replace"))


def _newest(node: NodeContents) -> list[tuple[str, int]]:
    found: dict[tuple[int, int, str], int] = {}
    for entry in (entry for entries in node.attempts.values() for entry in entries):
        if match := _LOG.fullmatch(entry.path):
            found[int(match["fence"]), int(match["restart"] or 0), entry.path] = entry.bytes
    fence = max((key[0] for key in found), default=0)
    return [(key[2], found[key]) for key in sorted(found) if key[0] == fence]


def _text(node: Store, path: str, begin: int) -> bytes:
    """Read whole lines from `begin` on; a line that is not complete yet waits for the next time."""
    try:
        data = node.read(path, begin)
    except NotFound:
        return b""
    return data[: data.rfind(b"\n") + 1] or (data if begin == 0 else b"")
