"""How urgent each node of a graph is: its own seconds and those of the longest chain of nodes behind it."""

from collections.abc import Iterable, Mapping


def longest_chains(seconds: Mapping[str, float], needs: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """Add up, by node, the seconds of the longest chain that begins with it.

    `seconds` has a node behind all that it needs, as a graph is written; what `needs` names beyond it counts nothing.
    """
    behind = dict.fromkeys(seconds, 0.0)
    for node in reversed(list(seconds)):
        behind[node] += seconds[node]
        for needed in needs.get(node, ()):
            if needed in behind:
                behind[needed] = max(behind[needed], behind[node])
    return behind
