"""Transitional: `ModelSettings` lives in `stages.model_settings`."""

from vitpipe.stages.model_settings import ModelSettings as ModelSettings
from vitpipe.stages.variants import Sizes as Sizes
