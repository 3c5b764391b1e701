"""What a report will cost: next to nothing, unless a large model is run over images without a GPU. No torch."""

from vitpipe.stages.estimates import Estimate, Given, Known
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.report.config import ReportConfig, ReportResources
from vitpipe.stages.vit.flops import forward_macs, num_parameters

_PAGE_S = 1.0
"""Seconds of the page itself: with what its task takes to start, 2 were measured of the quickstart's."""


def estimate(config: ReportConfig, resources: ReportResources, inputs: Given, known: Known) -> Estimate:
    """Price a page of a few megabytes, mostly images, in a second; and the model's passes over its images.

    Weights that are only found upstream of the scores are not known before the run: those named by an input count.
    """
    page = Estimate(bytes=4_000_000, hours=_PAGE_S / 3600)
    given = [one for name in ("checkpoint", "weights") for one in inputs.get(name, ())]
    model: ModelSettings | None = next((found for one in given[::-1] if (found := getattr(one, "model", None))), None)
    if model is None or not config.attention_images:
        return page
    if model.classes is None or model.family == "resnet":
        return page
    images = config.attention_images + min(config.rollout_images, config.attention_images)
    flops = float(images * 2 * forward_macs(model))
    hours = _PAGE_S / 3600 + flops / known.task_flops(resources) / 3600
    passes = {"images": images, "flops": flops, "memory_bytes": 4 * num_parameters(model), "hours": hours}
    return page.model_copy(update=passes)
