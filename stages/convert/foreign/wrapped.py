"""Which of a file's tensors are the model: those behind a wrapper's prefix, of several copies the one that is asked
for, without what only its pretraining used. No torch.
"""

import re
from collections.abc import Collection, Iterable

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import ForeignSource
from vitpipe.stages.convert.families import huggingface_families, timm_eva
from vitpipe.stages.convert.formats.common import Named, readings, renamed
from vitpipe.stages.convert.numbers import Arrays

WRAPPERS = {
    "module", "model", "_orig_mod", "backbone", "encoder", "net", "network", "student", "teacher", "ema", "ema_model",
    "model_ema", "module_ema", "averaged_model", "state_dict", "state_dict_ema", "params", "params_ema", "vit",
    "base_model", "model_state_dict", "feature_extractor",
}  # fmt: skip
"""Names that training code puts before those of a whole model: DataParallel, torch.compile, Lightning, averages."""
_PRETRAINING = re.compile(r"decoder[._]|mask_token$|(vit\.)?embeddings\.mask_token$")
_NAMED = 5


def unwrapped(arrays: Arrays, source: ForeignSource, asked: str) -> tuple[Arrays, tuple[str, ...], bool]:
    """The model's tensors by their plain names, notes of what was left out, and whether that is not the file as it is.

    UsageError where the file holds several models and nothing says which, or one below a name that no wrapper has.
    """
    prefixes = _prefixes(arrays.shapes)
    chosen = _chosen(prefixes, source.prefix, arrays, asked)
    nested = [other for other in prefixes if other != chosen and other.startswith(chosen)]
    mine = {
        name.removeprefix(chosen): name
        for name in arrays.shapes
        if name.startswith(chosen) and not name.startswith(tuple(nested))
    }
    notes = [f"its tensors stand below {chosen!r}"] if chosen else []
    outside = f"outside {chosen!r}" if chosen else "of other copies"
    notes += _left_out(arrays.shapes.keys() - set(mine.values()), outside)
    if prefixes or source.prefix is not None:
        dropped = {name for name in mine if _PRETRAINING.match(name)}
        mine = {name: real for name, real in mine.items() if name not in dropped}
        notes += _left_out(dropped, "of its masked pretraining (decoder, mask token)")
    notes += _left_out(arrays.counters, "one whole number each")
    is_changed = bool(chosen or arrays.counters) or len(mine) < len(arrays.shapes)
    return (renamed(arrays, mine) if is_changed else arrays), tuple(notes), is_changed


def claimed(arrays: Arrays, beside: Collection[str], asked: str) -> Named | None:
    """The tensors as the first of families and formats understands them that claims them; None where none does."""
    claims = (timm_eva.claim, huggingface_families.claim, *(reading.claim for reading in readings().values()))
    return next((named for claim in claims if (named := claim(arrays, beside, asked))), None)


def _prefixes(names: Iterable[str]) -> list[str]:
    """What stands before each patch projection that torch's libraries know by name, the shortest first."""
    marks = [reading.landmarks for reading in readings().values()]
    plain = {mark.patch for mark in marks if "." in mark.patch}
    signs = plain | {sign.partition(".")[2] for sign in plain if sign.startswith("vit.")} | huggingface_families.SIGNS
    found = _before(names, signs) or _before(names, {mark.resnet for mark in marks if "." in mark.resnet})
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _before(names: Iterable[str], signs: Iterable[str]) -> set[str]:
    found = set()
    for name in names:
        fitting = [sign for sign in signs if name == sign or name.endswith(f".{sign}")]
        if fitting:
            found.add(name.removesuffix(max(fitting, key=len)))
    return found


def _chosen(prefixes: list[str], wanted: str | None, arrays: Arrays, asked: str) -> str:
    listed = ", ".join(repr(prefix) for prefix in prefixes)
    if wanted is not None:
        if wanted and not any(name.startswith(wanted) for name in arrays.shapes):
            found = f"none of its {len(arrays.shapes)} tensors begins with {wanted!r}" + (
                f"; models stand below {listed}" if prefixes else ""
            )
            raise UsageError(asked, found, "correct config.source.prefix")
        return wanted
    if len(prefixes) > 1:
        found = f"it holds {len(prefixes)} models, below {listed}"
        raise UsageError(asked, found, f"say which: config.source.prefix, such as {prefixes[-1]!r}")
    prefix = prefixes[0] if prefixes else ""
    if not all(part in WRAPPERS for part in prefix.split(".")[:-1]):
        near = ", ".join(sorted(arrays.shapes)[:_NAMED])
        found = f"no plain Vision Transformer among its {len(arrays.shapes)} tensors ({near}), but one below {prefix!r}"
        raise UsageError(asked, found, f"if that is the one, give config.source.prefix: {prefix!r}")
    return prefix


def _left_out(names: Iterable[str], why: str) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    were = "1 tensor was" if len(names) == 1 else f"{len(names)} tensors were"
    return [f"{were} left out, {why}: {', '.join(names[:_NAMED])}{more}"]
