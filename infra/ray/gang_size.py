"""How large a gang is. Knows no Ray."""

from dataclasses import dataclass


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

    @property
    def workers(self) -> int | tuple[int, int]:
        """Number of ranks, or the fewest and the most."""
        return self.most if self.least == self.most else (self.least, self.most)

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least} to {self.most}"
