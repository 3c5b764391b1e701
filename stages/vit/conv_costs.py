"""The convolutions of a hybrid's stem or a ResNet, one by one, with what each costs. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from stages.vit.config import ModelSettings
from stages.vit.variants import BASE_WIDTH


@dataclass(frozen=True)
class Convolution:
    """A kernel without bias, the norm that belongs to it, and the side of the square map it gives."""

    kernel: int
    channels: int
    out: int
    side: int
    normed: int
    """Channels of its norm, which has a scale and a bias for each; 0 for none."""
    ends_unit: bool = False

    @property
    def outputs(self) -> int:
        return self.out * self.side**2

    @property
    def macs(self) -> int:
        return self.kernel**2 * self.channels * self.outputs

    @property
    def parameters(self) -> int:
        return self.kernel**2 * self.channels * self.out + 2 * self.normed


def convolutions_of(settings: ModelSettings) -> Iterator[Convolution]:
    """All but a patch embedding's; none for a plain ViT."""
    if settings.resnet is not None:
        yield from _network(settings.image_px, settings.resnet.blocks, settings.resnet.width_factor, preact=True)
    elif settings.stem is not None:
        yield from _network(settings.image_px, settings.stem, 1, preact=False)


def _network(image_px: int, stages: tuple[int, ...], width_factor: int, preact: bool) -> Iterator[Convolution]:
    channels = BASE_WIDTH * width_factor
    side = _half(image_px)
    yield Convolution(7, 3, channels, side, normed=0 if preact else channels, ends_unit=True)
    side = _half(side)
    for number, units in enumerate(stages):
        narrow = BASE_WIDTH * width_factor << number
        for place in range(units):
            after = _half(side) if number and not place else side
            yield from _unit(channels, narrow, side, after, preact, first=not place)
            channels, side = 4 * narrow, after


def _unit(channels: int, narrow: int, side: int, after: int, preact: bool, first: bool) -> Iterator[Convolution]:
    """A pre-activation unit norms what enters each convolution, a post-activation one what leaves it."""
    out = 4 * narrow
    if first:
        yield Convolution(1, channels, out, after, normed=0 if preact else out)
    yield Convolution(1, channels, narrow, side, normed=channels if preact else narrow)
    yield Convolution(3, narrow, narrow, after, normed=narrow)
    yield Convolution(1, narrow, out, after, normed=narrow if preact else out, ends_unit=True)


def _half(side: int) -> int:
    return -(-side // 2)
