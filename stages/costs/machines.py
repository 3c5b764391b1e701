"""What a plan assumes of GPUs and of the machines that hold them: every number can be given by a user. No torch.

Speeds are a data sheet's where a field says so, else assumed or measured (docs/runs.md); no machine is looked at here.
"""

from typing import Annotated

from pydantic import Field

from vitpipe.infra.work import cores_beside_gpus
from vitpipe.stages.settings import Settings

SHARE_OF_LARGE = 0.95
"""A wide model's step beside its core's own matrix products, fp32 (docs/runs.md)."""
NARROW = 75.0
"""Width at which a core reaches half of that: narrow layers are bound by memory and by calls (docs/runs.md)."""
BF16_GAIN = 3.3
"""bf16 over fp32 on an AMD EPYC of Zen 5, 1.9 on one of Zen 4 (docs/runs.md); without AVX-512 bf16 it is no faster."""
GBIT = 1e9 / 8
"""Bytes a second of one Gbit/s."""
DEFAULT_SHARE = "default"
"""The entry of `utilisation` for a variant without one of its own."""
Positive = Annotated[float, Field(ge=1e-6, le=1e12)]
"""In units of a person's size: Gbit/s, GFLOP/s, watts, seconds, hours. Whatever is divided by it stays a number."""
Large = Annotated[float, Field(ge=1e3, le=1e24)]
"""Bytes, bytes a second, FLOP/s."""
Busy = Annotated[float, Field(ge=1e-6, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class GpuKind(Settings):
    """One kind of GPU, as `gpus.yaml` has it; the program behind `doctor --gpu` writes the same for one it measured."""

    peak_flops: Large
    """Dense bf16 FLOP/s by its data sheet."""
    peak_flops_fp32: Large | None = None
    """Dense fp32 FLOP/s without TF32, which torch leaves off by default and no training here turns on."""
    memory_bytes: Large
    """By its data sheet."""
    memory_bandwidth: Large
    """Bytes a second of its own memory, by its data sheet."""
    nvlink_bytes_per_s: Large
    """Bytes a second to the other GPUs of its machine, one way."""
    watts: Positive
    """Its board's limit."""
    launch_us: Positive = 5.0
    """Microseconds in which a process asks it for one operation; assumed, of PyTorch without CUDA graphs. The GPU works
    meanwhile: a step takes the longer of the two."""
    price_per_hour: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """In any currency; left out, a plan has no price."""
    utilisation: dict[str, Busy] = Field(default_factory=dict)
    """Share of the peak that a training's own FLOPs reach when nothing else holds it up: `default`, and by variant."""

    def flops(self, variant: str = DEFAULT_SHARE, precision: str = "bf16") -> float | None:
        """FLOP/s that a model of this variant reaches on it; None in fp32 where no peak of it is known.

        In fp32 the same share of its peak is assumed as in bf16.
        """
        peak = self.peak_flops_fp32 if precision == "fp32" else self.peak_flops
        return None if peak is None else peak * self.share(variant)

    def share(self, variant: str = DEFAULT_SHARE) -> float:
        """Look up the share of the peak; by default 0.4, about what published trainings of ViTs reach."""
        return self.utilisation.get(variant, self.utilisation.get(DEFAULT_SHARE, 0.4))


class ClusterFacts(Settings):
    """Machines that are all alike, and what they share. Given whole or in part by `plan --cluster-file`."""

    gpus_per_machine: Count = 8
    """GPUs of one machine, where there are any."""
    cores_per_machine: Count = 112
    """CPU cores of one machine; an HGX machine of eight H100 has two times 56."""
    disk_bytes: Large = 4e12
    """Room for shards on one machine, where no `cache_bytes` says less."""
    network_gbit_per_s: Positive = 3200.0
    """All of one machine's cards together, one way; eight of 400 by default."""
    link_efficiency: Busy = 0.9
    """Share of a link's speed that a collective of large messages gets."""
    latency_s: Annotated[float, Field(ge=0, le=60)] = 5e-6
    """Of one message between two machines."""
    store_gbit_per_s: Positive = 25.0
    """What one machine reads from the store, and writes of a checkpoint to it."""
    store_total_gbit_per_s: Positive | None = None
    """The same of all machines together; left out, it has no limit of its own."""
    copy_bytes_per_s: Large = 10e9
    """A rank's copy of its state into memory, for which training waits at a checkpoint; 10 to 20 measured."""
    gpu_hours_between_failures: Positive = 50_700.0
    """Of one GPU, until something interrupts the training (Llama 3: 419 interruptions in 54 days of 16,384 GPUs)."""
    restart_s: Positive = 180.0
    """From a lost rank to the first step after it: noticed, ranks started, checkpoint read, shards opened."""
    core_gflops: Positive | None = None
    """fp32 matrix products of one core, GFLOP/s; left out, `plan` measures the one that it runs on."""
    ranks_start_s: Annotated[float, Field(ge=0, le=86_400)] = 15.0
    """From a node's beginning to its ranks' first step: processes, imports, shards opened."""
    task_start_s: Annotated[float, Field(ge=0, le=86_400)] = 2.0
    """Of one task of a fan-out, until it does what it is for; the first on each core also starts a process."""
    core_watts: Positive = 4.0
    """Of one core at work, with its share of memory and board."""
    price_per_core_hour: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Where a node computes on CPU cores alone."""

    def store_bytes_per_s(self, machines: int) -> float:
        """Bytes a second between one machine and the store, while so many use it."""
        total = self.store_total_gbit_per_s
        return min(self.store_gbit_per_s, total / machines if total else self.store_gbit_per_s) * GBIT

    def machines_for(self, workers: int, gpus_each: float, cores_each: int) -> int:
        """Count the machines that so many ranks fill: by their GPUs and by their cores."""
        return -(-workers // max(1, self.room_for(gpus_each, cores_each)))

    def room_for(self, gpus_each: float, cores_each: float) -> int:
        """Count the ranks, or tasks, that one machine holds; 0 where it holds none."""
        by_cores = int(self.cores_per_machine // max(1, cores_each))
        return min(by_cores, int(self.gpus_per_machine // gpus_each)) if gpus_each else by_cores

    def cores_needed(self, each: int, workers: int, gpus_each: float) -> dict[str, float]:
        """Say what so many cores of each worker ask of a machine, as `Costs.needed` has it.

        `cores_per_worker`, and where a machine cannot give them to each of its GPUs, `cores_per_machine` that could,
        `workers_per_machine` that this one holds, and `cores_there` that it has for each.
        """
        beside = min(workers, int(self.gpus_per_machine // gpus_each)) if gpus_each else 1
        found = {"cores_per_worker": float(each)}
        if each * beside > self.cores_per_machine:
            room = self.room_for(gpus_each, each)
            found |= {"cores_per_machine": float(each * beside), "workers_per_machine": float(room)}
            found |= {"cores_there": float(self.cores_per_machine // beside)}
        return found

    def cores_for(self, asked: int | None, gpus_each: float) -> int:
        """Cores of one rank: as asked, else as a run gives it: its GPUs' share of their machine."""
        if asked is not None:
            return asked
        return cores_beside_gpus(self.cores_per_machine, self.gpus_per_machine, gpus_each) if gpus_each else 1

    def core_flops(self, width: int, bf16: bool = False) -> float | None:
        """FLOP/s of one core on a training step of a model of this width; None where no core was measured."""
        if self.core_gflops is None:
            return None
        fp32 = self.core_gflops * 1e9 * SHARE_OF_LARGE * width / (width + NARROW)
        return fp32 * (BF16_GAIN if bf16 else 1.0)
