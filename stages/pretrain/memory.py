"""What one worker of a pretraining needs of memory, term by term. No torch.

Read off DeepSpeed 0.19 (file and function named by each term) and measured: `tests/benchmarks/memory.py`, docs/runs.md.
All terms that can stand at once are added; what ends before another begins is not. On a CPU malloc adds its own, within
5 % of the sum.
"""

from dataclasses import dataclass

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.settings import micro_batch_of
from vitpipe.stages.training.config import BUCKET_ELEMENTS, UPDATED_AT_A_TIME
from vitpipe.stages.training.objective_costs import activation_bytes, largest_parameter
from vitpipe.stages.training.optim.rule import BYTES
from vitpipe.stages.vit.flops import backward_bytes

CPU_PROCESS_BYTES = 450_000_000
"""Anonymous memory of a rank once torch and DeepSpeed are imported: 421 MiB measured."""
GPU_PROCESS_BYTES = 1_000_000_000
"""CUDA context, cuBLAS workspaces and NCCL's buffers: assumed, not measured."""
SMALL_BYTES = 75_000_000
"""Threads' stacks and scratch of the kernels: what models took beyond their terms, at most."""
KEPT_BY_MALLOC = 0.6
"""Part of a model as built that malloc keeps after it was freed, at ZeRO 2: 0.2 to 0.6 measured."""
USED_AGAIN = 0.2
"""Part of gloo's copy of the sums that lies where a pass's gradients did, in fp32: 0.2 to 0.65 measured, in bf16 0."""
RECOMPUTED_KEPT = 0.5
"""Part of what `activation_checkpointing` frees on a CPU that malloc keeps: 0.48 measured, once."""
PREFETCHED = 6
"""Micro-batches of images that are ready, being made and being used."""


@dataclass(frozen=True)
class Worker:
    """What the terms depend on."""

    parameters: int
    config: PretrainConfig
    resources: PretrainResources
    gpu: bool

    @property
    def bf16(self) -> bool:
        """Whether the model computes in bfloat16."""
        return self.config.precision == "bf16"

    @property
    def weight(self) -> int:
        """Bytes of a weight that the model computes with."""
        return 2 if self.bf16 else 4

    @property
    def micro_batch(self) -> int:
        """Images of one forward pass."""
        return micro_batch_of(self.config.batch_images, self.resources.micro_batch)

    @property
    def share(self) -> float:
        """Parameters of this worker's part."""
        return self.parameters / self.resources.least_workers

    @property
    def bucket(self) -> int:
        """Elements of a bucket: torch.empty takes all of it on a GPU, on a CPU what is written."""
        return BUCKET_ELEMENTS if self.gpu else min(BUCKET_ELEMENTS, self.parameters)

    @property
    def offloaded(self) -> bool:
        """Whether weights and moments lie in the host's memory."""
        return self.resources.offload == "cpu"

    @property
    def recomputes(self) -> bool:
        """Whether blocks are computed again in the backward pass."""
        return self.resources.activation_checkpointing == "blocks"

    @property
    def flat(self) -> bool:
        """Whether weights and gradients of a group are one flat tensor each (`flat_zero.py`)."""
        return self.resources.zero <= 1 and not self.offloaded

    @property
    def sent(self) -> int:
        """Bytes of a gradient on its way to another rank."""
        return BYTES[self.config.reduce_dtype]

    @property
    def own(self) -> float:
        """Parameters that this worker updates."""
        return self.share if self.resources.zero else self.parameters

    @property
    def passes(self) -> int:
        """Micro-batches of a worker in one step."""
        return -(-self.config.batch_images // self.micro_batch // self.resources.least_workers)


def terms(
    config: PretrainConfig, resources: PretrainResources, model: ModelSettings, parameters: int, gpu: bool
) -> dict[str, float]:
    """Bytes by name: on the GPU where there is one, and then without what lies in the host's memory."""
    worker = Worker(parameters, config, resources, gpu)
    found = {
        "process": GPU_PROCESS_BYTES if gpu else CPU_PROCESS_BYTES,
        "small": SMALL_BYTES,
        "weights": weights(worker),
        "optimiser": 0.0 if gpu and worker.offloaded else optimiser(worker),
        "average": 4 * worker.share if config.ema and not (gpu and worker.offloaded) else 0.0,
        "gradients": gradients(worker),
        "passing": passing(worker, model),
        "freed": 0.0 if gpu else freed(worker, model),
        "activations": activations(worker, model),
        "images": images(worker, model),
    }
    if not gpu:
        found["checkpoint"] = saved_bytes(config) * worker.share
    if worker.offloaded:
        found["offload"] = offload(worker, model)
    return found


def saved_bytes(config: PretrainConfig) -> int:
    """Bytes of a checkpoint per parameter, and of the copy that it is written from: fp32 weights, moments, average."""
    return 4 + config.optimizer.moment_bytes + (4 if config.ema else 0)


def weights(worker: Worker) -> float:
    """What the model computes with; ZeRO 3 keeps a share and gathers up to `stage3_max_live_parameters`."""
    if worker.resources.zero < 3:
        return worker.weight * worker.parameters
    live = min(worker.parameters, 2 * BUCKET_ELEMENTS)
    return worker.weight * (worker.share + live)


def optimiser(worker: Worker) -> float:
    """Moments and fp32 weights; a flat optimiser updates weights that are fp32 where they lie, DeepSpeed's a copy
    (stage_1_and_2.py, single_partition_of_fp32_groups; stage3.py, _create_fp32_partitions)."""
    copy = 0 if worker.flat and not worker.bf16 else 4
    return (copy + worker.config.optimizer.moment_bytes) * worker.own


def gradients(worker: Worker) -> float:
    """What the backward pass leaves, and the sums that a step is made from."""
    whole, share = worker.parameters, worker.share
    if worker.flat:
        # flat_zero.py: a pass's own, their fp32 sums, and what bf16 ones are copied into from the second pass on
        return (worker.weight + 4 + (2 if worker.bf16 and worker.passes > 1 else 0)) * whole
    if worker.resources.zero == 1:
        # stage_1_and_2.py: all gradients (grad_accum in fp32), and grads_in_partition, the copy of this part's
        return 4 * whole + 4 * share
    return 4 * share  # stage_1_and_2.py, averaged_gradients; stage3.py, grad_partitions_flat_buffer


def passing(worker: Worker, model: ModelSettings) -> float:
    """Copies that come and go, in the backward pass or, when activations are gone, in the update; what ZeRO 3 made in
    the one was seen to be kept in the other by malloc."""
    if worker.resources.zero == 3:
        return reduction(worker) + update(worker)
    return max(reduction(worker), update(worker) - activations(worker, model))


def reduction(worker: Worker) -> float:
    """Copies that pass while gradients are summed over the ranks; DeepSpeed makes them on one rank too."""
    if worker.flat:
        if worker.resources.least_workers == 1:
            return 0.0
        copied = worker.sent if worker.sent < 4 else 0  # else as they lie
        scattered = 0.0  # of which gloo makes a copy, partly where a pass's own were if these are as wide
        if worker.resources.zero and not worker.gpu:
            scattered = worker.sent * (1 if worker.bf16 else 1 - USED_AGAIN)
        return (copied + scattered) * worker.parameters
    buffers = 2 if worker.gpu and worker.resources.zero >= 2 else 1  # overlap_comm writes one while the other is sent
    width = 4 if worker.resources.zero == 1 else worker.weight
    converted = worker.sent if worker.sent != width else 0  # stage_1_and_2.py, allreduce_bucket: a copy of what is sent
    if worker.resources.zero == 3 and worker.resources.least_workers > 1:
        # stage3.py: the input of reduce_scatter_coalesced; partition_parameters.py, _all_gather_dtype: what is gathered
        # ahead, which a model that is gathered at once has none of
        buffers += 2 if worker.parameters > BUCKET_ELEMENTS else 1
    # stage_1_and_2.py, get_flat_partition: a later pass's gradients, which are then added to averaged_gradients
    later = 4 * worker.share if worker.resources.zero == 2 and worker.passes > 1 else 0
    return (width * buffers + converted) * worker.bucket + later  # with the ipg bucket


def update(worker: Worker) -> float:
    """Copies that pass while weights are updated."""
    rule = worker.config.optimizer
    if worker.flat:
        # a weight, its moments and what is chosen, each in fp32 (torch_optimizer.py, RuleOptimizer)
        each = rule.update_bytes + 8 + 4 * len(rule.moments)
        return 0.0 if rule.fused else each * min(worker.own, UPDATED_AT_A_TIME)
    found = 4 * worker.own if worker.resources.zero == 3 or not worker.bf16 else 0.0  # flatten(averaged_gradients);
    return found + rule.update_bytes * worker.own  # ZeRO 2 in bf16 sums into a flat tensor


def freed(worker: Worker, model: ModelSettings) -> float:
    """What malloc keeps of blocks that were freed: of the fp32 model as built while the engine was made, unless
    gradients of the same sizes take its place; of activations that are computed again."""
    found = RECOMPUTED_KEPT * (_kept(worker, model, recompute=False) - _kept(worker, model, worker.recomputes))
    if not worker.flat and (worker.bf16 or worker.resources.zero > 1):
        found += 4 * worker.parameters * (KEPT_BY_MALLOC if worker.resources.zero == 2 else 1.0)
    return found


def activations(worker: Worker, model: ModelSettings) -> float:
    """What one micro-batch leaves for the backward pass, and the gradients of the block that this comes to first."""
    passing_by = backward_bytes(model) * worker.micro_batch * (1 if worker.bf16 else 2)
    return _kept(worker, model, worker.recomputes) + passing_by


def _kept(worker: Worker, model: ModelSettings, recompute: bool) -> float:
    scale = 1 if worker.bf16 else 2
    return scale * activation_bytes(worker.config.objective, model, recompute) * worker.micro_batch


def images(worker: Worker, model: ModelSettings) -> float:
    """uint8 images read ahead, and the micro-batch as fp32; on a GPU the ones read ahead lie beside it."""
    one = 3 * model.image_px**2 * worker.micro_batch
    return one * (4 + (1 if worker.gpu else PREFETCHED))


def offload(worker: Worker, model: ModelSettings) -> float:
    """A gradient's buffers of the largest parameter; in the host's memory, weights and gradients of this part on their
    way (stage_1_and_2.py: temp_grad_buffer_for_gpu_offload, param_buffer_of_bit16, single_partition.grad)."""
    largest = largest_parameter(worker.config.objective, model)
    host = 0.0 if worker.gpu else (worker.weight + 4) * worker.share
    return 2 * worker.weight * largest + host
