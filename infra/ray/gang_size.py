"""How large a gang is, and where its ranks sit. Knows no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitpipe.infra.ray.gang_notes import RankProcess, Seat


@dataclass(frozen=True)
class Size:
    """How many ranks, and what each asks for."""

    least: int
    most: int
    cpus: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """The resources that one rank asks of a machine, as Ray names them."""
        return {"CPU": float(self.cpus), **({"GPU": float(self.gpus)} if self.gpus else {})}

    def reachable(self, room: int) -> int:
        """How many ranks start on machines that hold so many, if they hold the fewest."""
        return min(self.most, room)

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least} to {self.most}"


def seats(places: Sequence[RankProcess], size: Size, restart: int, timeout_s: int, since: float = 0.0) -> list[Seat]:
    """Seat the ranks, numbered as their places are: those of one machine share its GPUs, as with torchrun."""
    nodes = list(dict.fromkeys(place.node for place in places))
    beside = {node: [rank for rank, place in enumerate(places) if place.node == node] for node in nodes}
    gpus = {node: _sorted({gpu for rank in ranks for gpu in places[rank].gpus}) for node, ranks in beside.items()}
    found = []
    for rank, place in enumerate(places):
        local, all_gpus = beside[place.node].index(rank), gpus[place.node]
        found.append(
            Seat(
                rank=rank,
                world_size=len(places),
                local_rank=local,
                local_world_size=len(beside[place.node]),
                node_rank=nodes.index(place.node),
                restart=restart,
                threads=size.cpus,
                gpus=all_gpus,
                device=_device(size, place, local, all_gpus),
                timeout_s=timeout_s,
                since=since,
            )
        )
    return found


def _device(size: Size, place: RankProcess, local_rank: int, all_gpus: tuple[str, ...]) -> str:
    """Local rank k has the k-th share of its machine's GPUs, whichever of them Ray calls its own: all are the gang's.

    A share of one GPU lies where Ray says.
    """
    if not size.gpus:
        return "cpu"
    return f"cuda:{local_rank * int(size.gpus) if size.gpus >= 1 else all_gpus.index(place.gpus[0])}"


def _sorted(gpus: set[str]) -> tuple[str, ...]:
    """In the order of their numbers; other ids by name."""
    return tuple(sorted(gpus, key=lambda gpu: (0, int(gpu), "") if gpu.isdigit() else (1, 0, gpu)))
