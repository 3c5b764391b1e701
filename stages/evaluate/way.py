"""How the images of an evaluation get to the model's size: as asked for, as a fine-tuning tested its weights, or as the
makers of imported weights say. No torch.
"""

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.contract import Events
from vitpipe.stages.evaluate.config import EvaluateConfig
from vitpipe.stages.evaluate.work_items import side_of
from vitpipe.stages.preparation import PREPARATION, EvalWay, as_tested, read_preparation


def way_of(config: EvaluateConfig, weights: Weights | Score | None, events: Events) -> EvalWay:
    """Choose the way; where it is not that of the weights, it is noted.

    UsageError where their makers are asked and say nothing of it.
    """
    said = None
    if weights is not None and weights.has(PREPARATION):
        said = read_preparation(weights.read_json(PREPARATION), weights.uri)
    if config.eval_resize == "weights":
        if said is None:
            found = "they do not say how their images get to their size"
            raise UsageError("evaluate with eval_resize weights", found, "take squash, resize_crop or resmall_crop")
        image_px, own = side_of(config, weights), weights and weights.model
        assert image_px and own, "refused before"
        return EvalWay(said.at(image_px, own.image_px))
    own_way = as_tested(weights.protocol, side_of(config, weights)) if isinstance(weights, Score) else None
    if config.eval_resize is None and own_way and not config.probes:
        antialias = own_way.antialias if config.antialias is None else config.antialias
        return EvalWay(own_way.fit, own_way.resize_px, antialias)
    way = EvalWay(config.eval_resize or "resize_crop", antialias=bool(config.antialias))
    if said is not None:
        theirs = f"the weights' makers prepare images by {said}"
        events.emit("note", f"{theirs}, this by {way.fit}; eval_resize: weights takes theirs")
    elif own_way and not config.probes and own_way != way:
        theirs = f"the weights were tested by {own_way.fit}"
        events.emit("note", f"{theirs}, this by {way.fit}; leave eval_resize and antialias out to take theirs")
    return way
