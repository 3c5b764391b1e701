"""From a pretraining's recipe to what binds it: its numbers are put together here, and the terms add them up. No torch.

Each term is a file of `stages.costs`; what they take of machines and GPUs is `Known`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vitpipe.stages.costs.collectives import traffic
from vitpipe.stages.costs.fetching import Feed
from vitpipe.stages.costs.launches import launches_of
from vitpipe.stages.costs.shortfall import knee, needed
from vitpipe.stages.costs.tasks import WorkPhase
from vitpipe.stages.costs.training import RankSpeed, TrainingCosts, TrainingWork
from vitpipe.stages.estimates import Costs, Known
from vitpipe.stages.images.image_costs import image_facts, image_work
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.job import ResolvedRecipe
from vitpipe.stages.pretrain.locality import share_read
from vitpipe.stages.pretrain.measuring import Measurements
from vitpipe.stages.pretrain.memory import saved_bytes, terms
from vitpipe.stages.training.objective_costs import num_blocks, num_trained, recomputed_flops, train_flops

CPU_LINK_BYTES_PER_S = 1e9
"""Between two ranks of one machine by gloo: through its memory and its loopback."""
CPU_STEP_S = 0.02
"""Of a step on cores beside its FLOPs: Python, DeepSpeed, gloo, metrics."""
MOST_PASSES = 64
"""Micro-batches that are made one, at most, where a host asks its GPU for less than it could do."""
FAR_FROM_BEST = 0.25, 4.0
"""Between these ratios to the best interval checkpoints lose little more than at the best itself."""


@dataclass(frozen=True)
class CostedPretraining:
    """A recipe on a number of workers, with what is known of its data and of the machines."""

    recipe: ResolvedRecipe
    model: ModelSettings
    steps: int
    gpus_each: int
    workers: int
    shards: object
    """The first set, committed or only estimated."""
    known: Known
    measurements: Measurements

    @property
    def cores(self) -> int:
        """Cores of one rank."""
        return self.known.cluster.cores_for(self.recipe.resources.cpus_per_worker, self.gpus_each)

    @property
    def micro_batch(self) -> int:
        """Images of one pass; no more than leaves one for each worker."""
        return min(self.recipe.micro_batch, max(1, self.recipe.config.batch_images // self.workers))

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return num_trained(self.recipe.config.objective, self.model)

    @property
    def ranks(self) -> RankSpeed:
        """Who trains, how fast."""
        known, config = self.known, self.recipe.config
        machines = known.cluster.machines_for(self.workers, self.gpus_each, self.cores)
        if self.gpus_each:
            speed = known.gpu_speed(str(config.model.variant), config.precision)
            assert speed is not None  # whoever asks has looked at `known.no_speed`
            flops = speed * self.gpus_each
            nvlink = known.gpu.nvlink_bytes_per_s if known.gpu else 450e9
            return RankSpeed(self.workers, machines, True, self.cores, flops, 1.0, nvlink, launch_s=known.launch_s(1))
        width, part = self.model.feature_width, known.part_of_cores(self.workers * self.cores)
        flops = known.core_speed(width, config.precision == "bf16") * self.cores * part
        machines = 1 if known.is_one_machine else machines
        return RankSpeed(
            self.workers, machines, False, self.cores, flops, part, CPU_LINK_BYTES_PER_S, CPU_STEP_S / part
        )

    @property
    def feed(self) -> Feed:
        """The data as machines read it."""
        config, cluster = self.recipe.config, self.known.cluster
        disk = min(self.recipe.resources.cache_bytes or cluster.disk_bytes, cluster.disk_bytes)
        epochs = self.steps * config.batch_images / self.recipe.epoch_images
        images, machines = self.recipe.epoch_images, self.ranks.machines
        return Feed(images, image_facts(self.shards).bytes, machines, self._share(images, machines), epochs, disk)

    def _share(self, images: int, machines: int) -> float:
        """Part of the streams that a machine reads from; all of them where micro-batches do not divide the batch."""
        batch = self.recipe.config.batch_images
        if machines == 1 or batch % self.micro_batch:
            return 1.0
        beside = -(-self.workers // machines)
        return max(1 / machines, share_read(images, batch, self.micro_batch, self.workers, beside))

    @property
    def passes(self) -> int:
        """Micro-batches of the worker that has most in one step."""
        return -(-self.recipe.config.batch_images // (self.micro_batch * self.workers))

    @property
    def recomputes(self) -> bool:
        """Whether blocks are computed again in the backward pass."""
        return self.recipe.resources.activation_checkpointing == "blocks"

    def launches(self, recompute: bool) -> float:
        """Operations of a step that a worker asks its GPU for."""
        config, resources = self.recipe.config, self.recipe.resources
        engine = launches_of(resources.zero, config.precision, resources.offload == "cpu")
        blocks = num_blocks(config.objective, self.model)
        return float(engine.of_step(blocks, self.passes, recompute, resources.compile))

    @property
    def costs(self) -> TrainingCosts:
        """Every term of a step."""
        config, resources, passes = self.recipe.config, self.recipe.resources, self.passes
        parameters, bf16 = self.parameters, config.precision == "bf16"
        width = 2 if bf16 else 4
        work = TrainingWork(
            batch_images=config.batch_images,
            micro_batch=self.micro_batch,
            steps=self.steps,
            image_flops=float(train_flops(config.objective, self.model)),
            recomputed_flops=float(recomputed_flops(config.objective, self.model, resources.zero) * self.recomputes),
            launches=self.launches(self.recomputes),
            recomputed_launches=self.launches(self.recomputes) - self.launches(recompute=False),
            zero=resources.zero,
            sent=traffic(resources.zero, parameters, width, 2 if config.reduce_dtype == "bf16" else 4, passes),
            state_bytes=float(saved_bytes(config) * parameters),
            checkpoint_steps=self.recipe.checkpoint_steps,
            image=image_work(config.augment, self.shards, self.model.image_px, self.feed.ranged),
            feed=self.feed,
        )
        return TrainingCosts(work, self.ranks, self.known.cluster)

    @property
    def memory(self) -> dict[str, float]:
        """Bytes of a worker by what needs them."""
        return terms(self.recipe.config, self.recipe.resources, self.model, self.parameters, self.gpus_each > 0)

    @property
    def seconds(self) -> float:
        """From the node's beginning to its last checkpoint."""
        return self.known.cluster.ranks_start_s + self.costs.seconds + self.measuring_s

    @property
    def measuring_s(self) -> float:
        """For which training stands still to be measured."""
        precision = self.recipe.config.precision
        return self.measurements.seconds(self.ranks, self.model, self.micro_batch, precision, self.shards)

    @property
    def phase(self) -> WorkPhase:
        """What the queue is asked for."""
        gang = {"cpus": float(self.cores), "gpus": float(self.gpus_each), "ranks": self.workers}
        return WorkPhase.model_validate({"tasks": 1, "seconds": self.seconds, **gang})

    def facts(self) -> Costs:
        """What a plan prints."""
        costs = self.costs
        fewer = self._fewer_launches(costs)
        return Costs(
            binds=costs.binds,
            step_seconds={
                "compute": costs.compute_s,
                "recompute": costs.recompute_s,
                "launches": costs.launches_s,
                "network": costs.network_s,
                "traffic": costs.traffic_s,
                "images": costs.images_s,
                "store": costs.store_s,
                "step": costs.step_s,
            },
            images_per_s=costs.images_per_s,
            compute_images_per_s=costs.work.batch_images / costs.model_s,
            machines=self.ranks.machines,
            workers=self.workers,
            cores_per_worker=self.cores,
            gpus=float(self.gpus_each * self.workers),
            needed=fewer | needed(costs, costs.model_s if fewer else costs.compute_s, self.gpus_each),
            image_milliseconds=costs.work.image.terms(),
            knee_workers=self.knee(),
            checkpoint_steps=costs.work.checkpoint_steps,
            best_checkpoint_steps=costs.best_checkpoint_steps,
            stalls_seconds=costs.saving.stalls_s,
            failures_seconds=costs.saving.lost_s,
            measurements=self.measurements.times,
            measuring_seconds=self.measuring_s,
            phases=(self.phase,),
            memory_terms=self.memory,
            store_bytes=costs.work.feed.fetched_bytes,
            window_bytes=costs.work.feed.window_bytes,
        )

    def doubts(self) -> Iterator[str]:
        """Say what holds the training up that a person could mend."""
        feed, resources = self.feed, self.recipe.resources
        asked, known = self.workers * self.cores, self.known
        if known.part_of_cores(asked) < 1:
            yield f"its ranks ask for {asked} CPU cores and share the {known.cores} of this machine: no quicker for it"
        if not feed.fits:
            yield (
                f"{feed.ranged:.0%} of the images are read one by one from the store: the windows of a machine's "
                f"streams are {feed.window_bytes / 1e9:.3g} GB, its room is {feed.disk_bytes / 1e9:.3g} GB"
            )
        saving, best = self.costs.saving, self.costs.best_checkpoint_steps
        steps = self.recipe.checkpoint_steps
        if not saving.ends:
            yield (
                f"it would never end: a failure is expected every {saving.between_failures_s:,.0f} s, and to be in the "
                f"store a checkpoint takes {min(saving.every_s, saving.seconds) + saving.upload_s:,.0f} s of steps"
                + (f"; checkpoint_every {best} steps would lose least" if best < steps else "")
            )
            return
        if self.gpus_each and saving.is_likely(resources.max_failures):
            expected = f"{saving.failures:,.0f}" if saving.failures >= 10 else f"{saving.failures:.2g}"
            yield (
                f"about {expected} failures are expected until its end, and more than max_failures "
                f"{resources.max_failures} end the command, which must be typed again: {saving.most_failures} would do"
            )
        lost = saving.stalls_s + saving.lost_s
        is_far = not FAR_FROM_BEST[0] <= steps / best <= FAR_FROM_BEST[1]
        if self.gpus_each and resources.checkpoint_every is not None and lost > 60 and is_far:
            yield f"checkpoint_every {steps} steps: about {best} would lose least to checkpoints and failures"

    def _fewer_launches(self, costs: TrainingCosts) -> dict[str, float]:
        """The least micro-batch that a GPU has room for and has more to do with than it is asked for; none where the
        host is no bound, or stays one."""
        if costs.launches_s <= costs.model_s:
            return {}
        batch = self.recipe.config.batch_images
        for times in range(2, min(MOST_PASSES, batch // self.workers // self.micro_batch) + 1):
            micro = times * self.micro_batch
            if batch % micro == 0:
                resources = self.recipe.resources.model_copy(update={"micro_batch": micro})
                larger = replace(self, recipe=replace(self.recipe, resources=resources))
                if sum(larger.memory.values()) > self.known.gpu_bytes:
                    break
                if larger.costs.launches_s <= larger.costs.model_s:
                    return {"micro_batch": float(micro)}
        return {}

    def knee(self) -> int:
        """Find the workers beyond which twice as many are not worth having."""
        batch = self.recipe.config.batch_images
        return knee(lambda count: replace(self, workers=count).costs.step_s, batch, batch // self.recipe.micro_batch)
