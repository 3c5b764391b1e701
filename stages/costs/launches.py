"""How many operations a step asks a GPU for: no step is shorter than the host takes to ask for them. No torch.

Counted on a CPU by torch's dispatch modes, two passes and one, two depths (docs/runs.md, what a step asks of the
device); a block is one of an encoder, or a unit of convolutions, which has about as many.
"""

from dataclasses import dataclass

RECOMPUTED, COMPILED, COMPILED_RECOMPUTED = 13, 24, 9
"""Operations of a block whose forward pass is made again; of a compiled one in all, and of its forward pass, by the
kernels that inductor generates."""


@dataclass(frozen=True)
class Launches:
    """Operations that launch work, by what brings them."""

    block: int
    """Of each block in each pass, forth and back."""
    once: int
    """Of each pass: embedding, norm, head, loss."""
    block_update: int
    """Of each block's parameters in each step."""
    update: int
    """Of each step."""

    def of_step(self, blocks: int, passes: int, recompute: bool = False, compiled: bool = False) -> int:
        """Count those of a step of so many passes."""
        block = self.block - compiled * (FLAT.block - COMPILED)
        block += recompute * (COMPILED_RECOMPUTED if compiled else RECOMPUTED)
        return passes * (blocks * block + self.once) + blocks * self.block_update + self.update

    def of_passes(self, images: float, micro_batch: int, batch_images: int, blocks: int) -> float:
        """Count those of a training on so many images in all."""
        steps = images / batch_images
        return steps * self.of_step(blocks, -(-batch_images // micro_batch))


FLAT = Launches(38, 45, 0, 32)
"""ZeRO 0 and 1 without offload (`stages.training.flat_zero`), and fine-tuning."""
_DEEPSPEED = {
    (2, "fp32"): Launches(74, 68, 12, 105),
    (2, "bf16"): Launches(74, 73, 180, 233),
    (3, "fp32"): Launches(66, 62, 24, 95),
    (3, "bf16"): Launches(66, 65, 24, 95),
}


_BUSY_FLOPS, _BUSY_LAUNCH_S = 400e12, 5e-6
"""FLOP/s and seconds a launch that `busy_part` has in mind, an H100's, whichever is there: plan and run agree."""
_LOOK = {"fp32": Launches(10, 8, 0, 0), "bf16": Launches(20, 12, 0, 0)}
"""The forward pass up to the features; in bf16 torch's autocast turns each weight and what meets it."""


def busy_part(flops: float, launches: float) -> float:
    """Tell which part of the time a process keeps a GPU busy that computes so much between so many launches: 0 to 1."""
    return min(1.0, flops / _BUSY_FLOPS / (launches * _BUSY_LAUNCH_S))


def launches_of_looks(images: float, batch_images: int, blocks: int, precision: str) -> float:
    """Count those of forward passes over so many images."""
    return images / batch_images * _LOOK[precision].of_step(blocks, 1)


def launches_of(zero: int, precision: str, offload: bool) -> Launches:
    """Look up what an engine launches; with offload, which was not counted, it is taken as ZeRO 2."""
    return FLAT if zero < 2 and not offload else _DEEPSPEED[max(2, zero), precision]
