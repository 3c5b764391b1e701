"""What a rank's environment says before its process group is made."""

from types import SimpleNamespace

import pytest
import ray.train

from vitpipe.infra.ray import process_group


@pytest.mark.parametrize("theirs", [None, "INFO"])
def test_nccl_settings_give_way_to_the_operators(theirs: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = dict.fromkeys(("world_rank", "world_size", "local_rank", "local_world_size", "node_rank"), 0)
    context = SimpleNamespace(**{f"get_{name}": lambda number=number: number for name, number in numbers.items()})
    environment = {} if theirs is None else {"NCCL_DEBUG": theirs}
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "a machine"))
    monkeypatch.setattr(process_group.os, "environ", environment)
    process_group._set_environment("127.0.0.1", 4711, 0, on_cpu=True)
    assert environment["NCCL_DEBUG"] == (theirs or "WARN")
    assert environment["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"
