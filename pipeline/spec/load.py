"""From YAML text to a frozen PipelineSpec, with every error in it found at once. Knows no store and no cluster.

In this order: `extends`, overrides, `vars`, `env`, then the nodes, their `foreach`, configs and needs.
"""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vitpipe.pipeline.spec.catalog import Reuse
from vitpipe.pipeline.spec.graph import Graph, build
from vitpipe.pipeline.spec.places import absolute_uri
from vitpipe.pipeline.spec.text.given_files import with_contents
from vitpipe.pipeline.spec.text.given_places import with_places
from vitpipe.pipeline.spec.text.layers import extend, override, read_file
from vitpipe.pipeline.spec.text.problems import Problems, SpecError
from vitpipe.pipeline.spec.text.references import env_lookup, fill, refuse_rest, vars_lookup
from vitpipe.pipeline.spec.text.secret_scan import scan
from vitpipe.pipeline.spec.text.yaml_source import Value, parse, plain
from vitpipe.pipeline.spec.top_level import Written, check_top, read_name, read_nodes, read_reuse


@dataclass(frozen=True)
class PipelineSpec:
    """A run as the user asked for it: everything resolved, every config typed, every need matched."""

    name: str
    store: str
    """Absolute URI; the run lies in `{store}/{name}`."""
    graph: Graph
    document: Mapping[str, Any]
    """The resolved YAML: `extends`, overrides, `vars` and `env` filled in, places absolute."""
    reuse: Reuse = "data"
    """Which results of the store's other runs may be adopted. In no fingerprint."""
    vars: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """`vars` as written, filled in. Decides nothing by itself; not in the resolved YAML."""

    @property
    def uri(self) -> str:
        """Where the run lies: `{store}/{name}`."""
        return f"{self.store}/{self.name}"

    @property
    def text(self) -> str:
        """The resolved YAML as text, which the run keeps as `spec.yaml`. `load` reads it back to the same spec."""
        out = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel types it as None
        yaml.width = 120
        yaml.dump(dict(self.document), out)
        return out.getvalue()


def load(
    source: Path | str,
    overrides: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> PipelineSpec:
    """Read a spec from a file (a Path) or from text (a str).

    `folder` is what relative paths start from: the current one, where the command is typed. Errors: SpecError (2) with
    every problem that could be found; UsageError (2) for a file that cannot be read.
    """
    folder = folder or Path.cwd()
    named = str(source) if isinstance(source, Path) else "the spec"
    problems = Problems(f"read {named}")
    if isinstance(source, Path):
        document = read_file(source, problems)
    else:
        document = extend(parse(source, "spec", problems), folder, problems)
    document = override(document, overrides, problems)
    _refuse_secrets(document, problems)
    document = _resolve(document, os.environ if env is None else env, problems)
    return _typed(document, folder, problems)


def _refuse_secrets(document: Value, problems: Problems) -> None:
    """Stop at once where there is a credential in the text: any other message might repeat it."""
    secrets = Problems(problems.asked)
    scan(document, "", secrets)
    secrets.stop()


def _resolve(document: Value, env: Mapping[str, str], problems: Problems) -> Value:
    """Fill in vars, then the environment; `each` is left for `foreach`."""
    vars = document.data.get("vars") if isinstance(document.data, Mapping) else None
    if vars is not None and isinstance(vars.data, Mapping):
        document = fill(document, "", vars_lookup(vars.data, problems), problems)
    elif vars is not None and vars.data is not None:
        problems.add(vars.at, "vars", "must map names to values")
    else:
        document = fill(document, "", vars_lookup({}, problems), problems)
    if document.too_large:
        problems.add(document.mark, "", document.too_large)
        raise problems.error()
    document = fill(document, "", env_lookup(env, problems), problems)
    _refuse_secrets(document, problems)
    return document


def _typed(document: Value, folder: Path, problems: Problems) -> PipelineSpec:
    top = check_top(document, problems)
    for key in ("name", "store", "reuse"):
        if key in top:
            refuse_rest(top[key], key, problems)
    name = read_name(top["name"], "name", problems) if "name" in top else ""
    store = _store(top["store"], folder, problems) if "store" in top else ""
    reuse = read_reuse(top.get("reuse"), problems)
    written = read_nodes(top["nodes"], problems) if "nodes" in top else []
    written = [replace(node, config=_given(node, folder, problems)) for node in written]
    names = top["nodes"].data if "nodes" in top and isinstance(top["nodes"].data, Mapping) else {}
    broken = frozenset(names) - {node.name for node in written}
    graph = build(written, broken, folder, problems)
    said = {"reuse": reuse} if "reuse" in top else {}
    resolved = {"version": 1, "name": name, "store": store, **said, "nodes": _nodes_as_written(names, written)}
    return PipelineSpec(name, store, graph, resolved, reuse, plain(top["vars"]) or {} if "vars" in top else {})


def _given(node: Written, folder: Path, problems: Problems) -> Value:
    """Make the places in a node's config absolute, and read the files that it names."""
    cls = node.stage.config_class()
    return with_contents(with_places(node.config, cls, folder), cls, f"{node.path}.config", problems)


def _store(value: Value, folder: Path, problems: Problems) -> str:
    try:
        return absolute_uri(value.data if isinstance(value.data, str) else "", folder)
    except ValueError as error:
        problems.add(value.mark, "store", f"not a store: {error}")
        return ""


def _nodes_as_written(nodes: Mapping[str, Value], written: Iterable[Written]) -> dict[str, Any]:
    configs = {node.name: node.config for node in written}
    return {
        name: {**plain(node), **({"config": plain(configs[name])} if "config" in plain(node) else {})}
        for name, node in nodes.items()
    }


__all__ = ["PipelineSpec", "SpecError", "load"]
