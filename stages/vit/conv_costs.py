"""The convolutions of a hybrid's stem or a ResNet, one by one, and what each costs. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.variants import BASE_WIDTH


@dataclass(frozen=True)
class Convolution:
    """A convolution without bias: kernel side, channels in and out, and the side of its square output."""

    kernel: int
    channels: int
    out: int
    side: int
    ends_unit: bool = False

    @property
    def outputs(self) -> int:
        """Numbers of its output for one image."""
        return self.out * self.side**2

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return self.kernel**2 * self.channels * self.outputs


def convolutions_of(settings: ModelSettings) -> Iterator[Convolution]:
    """List the convolutions in order, except the patch embedding's; none for a plain ViT."""
    if settings.resnet is not None:
        yield from _network(settings.image_px, settings.resnet.blocks, settings.resnet.width_factor)
    elif settings.stem is not None:
        yield from _network(settings.image_px, settings.stem, 1)


def _network(image_px: int, stages: tuple[int, ...], width_factor: int) -> Iterator[Convolution]:
    channels = BASE_WIDTH * width_factor
    side = _half(image_px)
    yield Convolution(7, 3, channels, side, ends_unit=True)
    side = _half(side)
    for number, units in enumerate(stages):
        narrow = BASE_WIDTH * width_factor << number
        for place in range(units):
            after = _half(side) if number and not place else side
            yield from _unit(channels, narrow, side, after, first=not place)
            channels, side = 4 * narrow, after


def _unit(channels: int, narrow: int, side: int, after: int, first: bool) -> Iterator[Convolution]:
    out = 4 * narrow
    if first:
        yield Convolution(1, channels, out, after)
    yield Convolution(1, channels, narrow, side)
    yield Convolution(3, narrow, narrow, after)
    yield Convolution(1, narrow, out, after, ends_unit=True)


def _half(side: int) -> int:
    return -(-side // 2)
