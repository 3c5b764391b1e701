"""Open a torch checkpoint without running anything in it: tensors and plain containers come back, the rest is inert.

DeepSpeed's files pickle its own classes (loss scaler, enums); here they become empty shells, so that reading needs
neither deepspeed nor trust.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from infra.errors import IntegrityError


def _tensor_without_attributes(rebuild: Any, kind: Any, args: tuple[Any, ...], state: Any) -> Any:
    """What torch calls for a tensor that carries Python attributes: DeepSpeed's are of no use to a reader."""
    return rebuild(*args)


_REAL = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._tensor", "_rebuild_from_type_v2"): _tensor_without_attributes,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class Inert:
    """Stands for any other class or function of a pickle: takes whatever it is given and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.item = (key, value)

    def append(self, value: Any) -> None:
        self.item = value

    def extend(self, values: Any) -> None:
        self.item = values


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _REAL.get((module, name), Inert)


def load_mapped(path: Path) -> dict[str, Any]:
    """Load a checkpoint with its tensors mapped from the file. IntegrityError when it is damaged or of another kind."""
    try:
        content = torch.load(
            path, map_location="cpu", mmap=True, weights_only=False,
            pickle_module=SimpleNamespace(Unpickler=_InertUnpickler, load=pickle.load, __name__="inert"),
        )  # fmt: skip
    except (RuntimeError, ValueError, TypeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise IntegrityError(f"read {path}", f"it is damaged: {error}", "use another step") from error
    if not isinstance(content, dict):
        raise IntegrityError(f"read {path}", f"it holds a {type(content).__name__}, not a checkpoint", "")
    return content
