"""Transitional: the family by name lives in `stages.variants`."""

from vitpipe.stages.variants import BASE_WIDTH as BASE_WIDTH
from vitpipe.stages.variants import HYBRIDS as HYBRIDS
from vitpipe.stages.variants import PLAIN as PLAIN
from vitpipe.stages.variants import RESNETS as RESNETS
from vitpipe.stages.variants import VARIANTS as VARIANTS
from vitpipe.stages.variants import ResNet as ResNet
from vitpipe.stages.variants import Sizes as Sizes
from vitpipe.stages.variants import find_variant as find_variant
from vitpipe.stages.variants import reduced as reduced
