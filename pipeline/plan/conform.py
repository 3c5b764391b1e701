"""Each pretraining and fine-tuning of a spec beside the paper's recipe for it. Knows no store; starts nothing.

Which of the paper's data sets a pretraining means is said by `vars: {paper: ImageNet-21k}` of the YAML, which no
fingerprint sees, or by the name of its data: `needs: {shards: imagenet-21k}`. Likewise a fine-tuning's benchmark:
`needs: {data: cifar10}`. `vars: {recipe: augreg-i21k}` means one of the authors' later recipes instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.stages.finetune.config import FinetuneConfig
from vitpipe.stages.finetune.paper_fields import conform as conform_finetuning
from vitpipe.stages.paper.recipe_comparison import RecipeComparison
from vitpipe.stages.paper.recipes import dataset, recipes
from vitpipe.stages.paper.tables import benchmark_id, vtab_task
from vitpipe.stages.paper.upstream import known_recipe, recipe_data
from vitpipe.stages.pretrain.config import PretrainConfig
from vitpipe.stages.pretrain.paper_fields import conform as conform_pretraining
from vitpipe.stages.pretrain.paper_fields import variant_name

VAR, RECIPE = "paper", "recipe"
STATUSES = ("equal", "differs", "unstated")


@dataclass(frozen=True)
class Conformity:
    """One node beside the paper."""

    node: str
    compared: RecipeComparison
    claimed: bool
    """Whether the spec says which recipe it means; else it is compared with the nearest."""

    @property
    def summary(self) -> str:
        """Counts in words: `14 equal, 1 differs, 19 unstated (2 not as we assume)`."""
        findings = self.compared.findings
        words = [f"{sum(one.status == status for one in findings)} {status}" for status in STATUSES]
        unlike = sum(not one.as_assumed for one in findings if one.status == "unstated")
        return ", ".join(words) + (f" ({unlike} not as we assume)" if unlike else "")

    @property
    def title(self) -> str:
        """The recipe it is compared with, said to be the nearest where none was claimed."""
        row = self.compared.row
        return row.title if self.claimed or not row.data else f"the nearest recipe, {row.title}"

    def to_json(self) -> dict[str, Any]:
        """The comparison as `conform --json` prints it."""
        return {
            "node": self.node,
            "row": self.compared.row.title,
            "claimed": self.claimed,
            "deviations": len(self.compared.deviations),
            "findings": [one.to_json() for one in self.compared.findings],
        }

    def lines(self) -> Iterator[str]:
        """Yield lines for a person: what differs first, then what the paper leaves open, then what is equal."""
        yield f"{self.node}: {self.title}: {self.summary}"
        for status in ("differs", "unstated", "equal"):
            for one in self.compared.findings:
                if one.status == status:
                    yield f"  {status:8} {one}"


def with_deviations(plan: Plan, found: Sequence[Conformity]) -> Plan:
    """Add each node's deviations from the paper's recipe to the plan."""
    nodes = dict(plan.nodes)
    for one in found:
        count = len(one.compared.deviations)
        recipe = one.title if one.title == one.compared.row.title else "the paper's nearest recipe"
        words = f"{count} deviation{'s' * (count != 1)} from {recipe}"
        deviations = tuple(str(each) for each in one.compared.deviations)
        nodes[one.node] = replace(nodes[one.node], paper=words, deviations=deviations)
    return Plan(nodes)


def claimed_data(vars: Mapping[str, Any], asked: str | None = None) -> str | None:
    """Find the paper's data set that a spec says its pretrainings mean, or None. UsageError for an unknown name."""
    name = asked if asked is not None else vars.get(VAR)
    if name is None:
        recipe = claimed_recipe(vars)
        return recipe_data(recipe) if recipe else None
    found = dataset(str(name))
    if found is None:
        known = ", ".join(recipes()["datasets"])
        where = "--data" if asked is not None else f"vars.{VAR}"
        words = f"{where} is {name!r}; its data sets are {known}"
        raise UsageError("compare with the paper", words, "name one of them")
    return found


def claimed_recipe(vars: Mapping[str, Any]) -> str | None:
    """Find which of the authors' later recipes a spec says it is, or None. UsageError for a name that is nearly one.

    A variable of that name which holds anything else is the spec's own.
    """
    name = vars.get(RECIPE)
    return known_recipe(name) if isinstance(name, str) else None


def conform(graph: Graph, data: str | None, recipe: str | None = None) -> list[Conformity]:
    """Compare every node that the paper has a recipe for: pretrainings, and fine-tunings that start from weights.

    `data` is the data set that the spec claims for all its pretrainings; without it, the names of their data say it.
    `recipe` is what it claims to be instead of the paper's.
    """
    found = []
    for node in graph.nodes.values():
        if isinstance(node.config, PretrainConfig):
            meant = data or data_of(node)
            found.append(
                Conformity(node.id, conform_pretraining(node.config, meant, recipe), claimed=meant is not None)
            )
        elif isinstance(node.config, FinetuneConfig) and node.needs.get("weights"):
            benchmark, model = benchmark_of(graph, node), _pretrained(graph, node)
            variant, image_px = (variant_name(model), model.image_px) if model else (None, None)
            compared = conform_finetuning(node.config, benchmark, variant, image_px, recipe)
            found.append(Conformity(node.id, compared, claimed=benchmark is not None))
    return found


def data_of(node: Node) -> str | None:
    """Find the paper's data set that a pretraining's shards are named after."""
    for ref in node.needs.get("shards", ()):
        for part in _parts(ref):
            if found := dataset(part):
                return found
    return None


def benchmark_of(graph: Graph, node: Node) -> str | None:
    """Find the benchmark of Table 4 that the node's data, or else the node itself, is named after."""
    for ref in (*node.needs.get("data", ()), node.id):
        source = None if is_uri(ref) or ref == node.id else getattr(graph.nodes[ref].config, "source", None)
        for part in (str(getattr(source, "name", "")), *_parts(ref)):
            found = vtab_task(part) or ("vtab" if part.startswith("vtab") else benchmark_id(part))
            if found and found != "imagenet-real":
                return found
    return None


def _parts(ref: str) -> list[str]:
    """Split a node's id or an artifact's URI into words, the last one first."""
    return list(reversed(ref.replace("--", "/").split("/")))


def _pretrained(graph: Graph, node: Node) -> Any:
    """Find the architecture of the weights that the node takes, where this spec says it."""
    for name in ("weights", "checkpoint"):
        for ref in node.needs.get(name, ()):
            if is_uri(ref):
                continue
            above = graph.nodes[ref]
            if isinstance(above.config, PretrainConfig):
                return above.config.model
            return _pretrained(graph, above)
    return None
