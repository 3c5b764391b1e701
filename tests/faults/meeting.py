"""One of two ranks, run as a program on a host of its own: meets the other, adds, and stays until it is told to end."""

import sys
import time
from pathlib import Path

from vitpipe.infra.ray.gang_notes import Seat
from vitpipe.infra.ray.process_group import join, leave, load, set_environment


def main(rank: int, address: str, folder: Path) -> None:
    seat = Seat(
        rank=rank, world_size=2, local_rank=0, local_world_size=1, node_rank=rank, restart=0, threads=1, gpus=(),
        device="cpu", timeout_s=60,
    )  # fmt: skip
    set_environment(seat, address)
    where = folder / "where"
    if (opened := load(seat, address)) is not None:
        where.with_suffix(".new").write_text(" ".join(map(str, opened)))
        where.with_suffix(".new").rename(where)
    while not where.exists():
        time.sleep(0.1)
    host, port = where.read_text().split()
    join(seat, (host, int(port)))
    import torch
    import torch.distributed as dist

    number = torch.tensor([1.0 + rank])
    dist.all_reduce(number)
    (folder / f"sum-{rank}").write_text(str(number.item()))
    while not (folder / "end").exists():
        time.sleep(0.1)
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
