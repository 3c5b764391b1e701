"""What a stage tells a plan: what a node will cost, and what may be assumed of the machine. Looks at neither."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, field_serializer

from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.costs.machines import DEFAULT_SHARE, ClusterFacts, GpuKind
from vitpipe.stages.costs.tasks import Tasks, WorkPhase
from vitpipe.stages.costs.training import Binds
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import Settings, TaskResources

_SLACK = 1e-6
"""Of a core or a GPU, by which shares of it may be too large when they are added up; the queue has the same."""


class Costs(Settings):
    """What a training's time is made of, and what would have to be there for the model alone to bind it."""

    binds: Binds
    """What holds a step up."""
    step_seconds: dict[str, float]
    """Of one step: compute, images and store go on at once, network is what is not hidden of the collectives, and
    traffic all of them. Compute is the model's FLOPs, of which recompute those that are computed again; or launches,
    the time in which a host asks its GPU for them, where that is longer."""
    images_per_s: float
    """Of all workers, between checkpoints."""
    compute_images_per_s: float
    """As many as the model alone would take."""
    machines: int
    workers: int
    """Ranks, or tasks that run at once."""
    cores_per_worker: int
    gpus: float = 0.0
    """That all of them hold together."""
    needed: dict[str, float] = Field(default_factory=dict)
    """To be bound by compute: `cores_per_worker`, `store_gbit_per_s` of each machine, `network_gbit_per_s`, or a larger
    `micro_batch`. Where no machine has so many cores for each of its workers also `cores_per_machine`, and
    `workers_per_machine` that it has them for."""
    image_milliseconds: dict[str, float] = Field(default_factory=dict)
    """One core's time for one image, by what is done to it."""
    knee_workers: int | None = None
    """Workers beyond which twice as many are less than 1.5 times as fast."""
    checkpoint_steps: int | None = None
    best_checkpoint_steps: int | None = None
    """What loses least between checkpoints and failures (Young, Daly)."""
    measurements: int = 0
    """How often a training is measured by `evaluate`."""
    measuring_seconds: float = 0.0
    """For which it stands still for all of them."""
    stalls_seconds: float = 0.0
    """Training waits so long for checkpoints in all."""
    failures_seconds: float = 0.0
    """Expected loss by interruptions in all."""
    phases: tuple[WorkPhase, ...] = ()
    """What the node has machines do, one after the other."""
    memory_terms: dict[str, float] = Field(default_factory=dict)
    """Bytes of a worker's peak memory, by what needs them."""
    store_bytes: float = 0.0
    """What each machine reads from the store."""
    window_bytes: float = 0.0
    """What each machine must hold so that it reads whole shards."""


def tasks_costs(tasks: Tasks, cluster: ClusterFacts) -> Costs:
    """What binds the tasks of a fan-out, for a plan; seconds are those of one task."""
    needed: dict[str, float] = {}
    if tasks.gpus_each and 0 < tasks.compute_s < tasks.images_s:
        each = math.ceil(tasks.images_s * tasks.cores_each / tasks.compute_s)
        needed = cluster.cores_needed(each, tasks.at_once, tasks.gpus_each)
    return Costs(
        binds=tasks.binds,
        step_seconds={"compute": tasks.compute_s / tasks.count, "images": tasks.images_s / tasks.count},
        images_per_s=tasks.images / tasks.seconds,
        compute_images_per_s=tasks.images / (tasks.compute_seconds if tasks.compute_s else tasks.seconds),
        machines=1,
        workers=tasks.at_once,
        cores_per_worker=max(1, int(tasks.cores_each)),
        gpus=tasks.at_once * tasks.gpus_each,
        needed=needed,
        image_milliseconds=tasks.image.terms(),
        phases=tasks.phases,
    )


class Estimate(Settings):
    """What a node will cost, as far as it is known before it runs; None is 'not known yet'."""

    steps: int | None = None
    images: int | None = None
    """Images processed in all; for ingest, images read."""
    flops: float | None = None
    bytes: int | None = None
    """Bytes the node will leave in the store."""
    memory_bytes: int | None = None
    """Peak memory per worker (per GPU where there is one)."""
    hours: float | None = None
    costs: Costs | None = None
    """What binds a training, and what it would take."""
    image_bytes: float | None = None
    """ShardSets only: bytes of one image, on average."""
    image_formats: dict[str, float] | None = None
    """ShardSets only: how many images are `jpeg`, `png` and `webp`, or which part."""
    splits: dict[str, int] | None = None
    """ShardSets only: images per split, for who comes after."""
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = Field(default=None, exclude=True)
    """In the order of their numbers, where they are known before anything runs: of images, and of a head."""
    unmatched: bool = Field(default=False, exclude=True)
    """Whether classes will be matched by name, and the names of one side are not known yet."""
    model: ModelSettings | None = None
    """Checkpoints and Weights: the architecture, for who comes after."""
    averaged: bool | None = None
    """Checkpoints: whether they will hold a running average of the weights."""
    recipe: dict[str, Any] | None = Field(default=None, exclude=True)
    """Checkpoints: the config, for who goes on from them."""
    notes: tuple[str, ...] = ()

    @field_serializer("model")
    def _whole(self, model: ModelSettings | None) -> dict[str, Any] | None:
        return model.model_dump(mode="json") if model else None  # in a dump without None, `classes: null` stays


class Known(Settings):
    """What an estimate may assume of the machine, which it cannot look at."""

    gpu_flops: float = 400e12
    """Sustained FLOP/s of one GPU in bf16 (about 40 % of an H100's 989 TFLOP/s)."""
    cpu_flops: float = 40e9
    """Sustained FLOP/s of one CPU core in fp32."""
    gpus: int = 0
    cores: int = 1
    """CPU cores of all machines together, where there is no GPU."""
    is_one_machine: bool = False
    """Whether they are of one machine, whose cores those share who ask for more than it has: a Ray of the run's own
    lets them (`RANKS_PER_CORE`)."""
    gpu_bytes: float = 80e9
    """Memory of one GPU."""
    host_bytes: float = 0.0
    """Memory of the only machine, where it has no GPU; 0 where nobody looked."""
    gpu: GpuKind | None = None
    """Which it is, where that is known: it then says how fast each variant is."""
    cluster: ClusterFacts = ClusterFacts()
    """The machines that hold GPUs and cores."""

    def gpu_speed(self, variant: str = DEFAULT_SHARE, precision: str = "bf16") -> float | None:
        """FLOP/s of one GPU on a model of this variant; None where nobody knows them of this precision."""
        return self.gpu.flops(variant, precision) if self.gpu else self.gpu_flops

    def launch_s(self, launches: float) -> float:
        """Seconds in which a process asks its GPU for so many operations; 0 where nobody described one."""
        return launches * self.gpu.launch_us / 1e6 if self.gpu and self.gpus else 0.0

    def no_speed(self, precision: str) -> str:
        """Say that hours cannot be told on these GPUs; empty where they can."""
        if not self.gpus or self.gpu_speed(precision=precision) is not None:
            return ""
        return f"no {precision} peak of this GPU is known, so no hours: give peak_flops_{precision} by --gpus-file"

    def core_speed(self, width: int, bf16: bool = False) -> float:
        """FLOP/s of one core on a model of this width."""
        return self.cluster.core_flops(width, bf16) or self.cpu_flops

    @property
    def machines(self) -> tuple[tuple[int, float, int], ...]:
        """Machines that are alike: how many, their cores, and their GPUs."""
        cluster = self.cluster
        if not self.gpus and self.is_one_machine:
            return ((1, self.cores, 0),)
        each = cluster.gpus_per_machine if self.gpus else cluster.cores_per_machine
        whole, rest = divmod(self.gpus or self.cores, each)
        if self.gpus:
            found = (whole, cluster.cores_per_machine, each), (int(rest > 0), cluster.cores_per_machine, rest)
        else:
            found = (whole, each, 0), (int(rest > 0), rest, 0)
        return tuple(kind for kind in found if kind[0])

    def room(self, cores_each: float, gpus_each: float = 0.0) -> int:
        """Count the tasks that all machines hold at once; 0 where none holds one."""
        asked = cores_each * self.part_of_cores(cores_each), gpus_each
        held = 0
        for count, *there in self.machines:
            pairs = [(has, each) for has, each in zip(there, asked, strict=True) if each]
            held += count * min((int((has + _SLACK) // each) for has, each in pairs), default=0)
        return held

    def image_cores(self, asked: float, threads: float, gpus_each: float, tasks: int) -> float:
        """Cores that make the images of a task beside its GPU: its threads take more than it asks for, where so many
        tasks leave them any."""
        there = sum(count * cores for count, cores, _ in self.machines)
        return max(asked, min(threads, there / max(1, min(tasks, self.room(asked, gpus_each)))))

    def part_of_cores(self, asked: float) -> float:
        """Part that each gets of its cores, where all who run at once ask for so many together."""
        shares = self.is_one_machine and not self.gpus
        return min(1.0, self.cores / asked) if shares and asked else 1.0

    def task_gpus(self, resources: TaskResources) -> float:
        """GPUs that one task of a fan-out holds."""
        if not self.gpus:
            return 0.0
        return 1.0 if resources.gpus_per_task is None else resources.gpus_per_task

    def task_flops(self, resources: TaskResources) -> float:
        """Sustained FLOP/s of one task of a fan-out: of its part of one GPU, or of its cores where it has none."""
        if gpus := self.task_gpus(resources):
            return self.gpu_flops * min(1.0, gpus)
        return self.cpu_flops * resources.cpus_per_task

    def idle_gpus(self, resources: TaskResources) -> str:
        """Say that a task of a fan-out holds more GPUs than it computes on; empty where it does not."""
        held = self.task_gpus(resources)
        if held <= 1:
            return ""
        return f"gpus_per_task {held:g}: a task computes on one GPU, the others that it holds do nothing"

    def too_large(self, resources: TaskResources, images: str, needed: Iterable[tuple[int, float]]) -> str:
        """Say that a task needs more memory than its part of a GPU has, or the machine; empty where it does not.

        `needed` has the number of `images` that a pass has, and the bytes: of what is asked for first, then of fewer,
        which are only looked at where that is too much.
        """
        part = min(1.0, self.task_gpus(resources))
        sizes, has = iter(needed), part * self.gpu_bytes if part else self.host_bytes
        _, asked = next(sizes)
        if not has or asked <= has:
            return ""
        enough = next((count for count, bytes_ in sizes if bytes_ <= has), None)
        larger = "take a larger part of one" if 0 < part < 1 else f"take a larger {'GPU' if part else 'machine'}"
        whose = "its part of a GPU" if part else "this machine"
        do = f"try {images} {enough}" if enough else larger
        return f"a task needs {asked / 1e9:.3g} GB, and {whose} has {has / 1e9:.3g}: {do}"


Given = Mapping[str, Sequence[Artifact | Estimate]]
"""A node's inputs as a plan knows them: committed, or only estimated."""
