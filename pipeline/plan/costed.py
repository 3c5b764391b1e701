"""A plan with all that it says beside its decisions: what it costs, and how far each recipe is from the paper's."""

from vitpipe.pipeline.plan import conform, prices
from vitpipe.pipeline.plan.assumed_sizes import assumed_sizes
from vitpipe.pipeline.plan.decide import make_plan
from vitpipe.pipeline.plan.planned import Plan, StoreFacts
from vitpipe.pipeline.plan.schedule import refuse_misfits, timed
from vitpipe.pipeline.spec.load import PipelineSpec


def costed(spec: PipelineSpec, facts: StoreFacts, machine: prices.Machine) -> Plan:
    """Plan a spec by what the store said of it, for these machines. UsageError where they never hold a node."""
    data = conform.claimed_data(spec.vars)
    made = make_plan(spec.graph, facts, known=machine.known, assumed=assumed_sizes(spec.graph, data))
    made = timed(made, spec.graph, machine)
    refuse_misfits(made, machine)
    made = prices.priced(made, spec.graph, machine)
    compared = conform.conform(spec.graph, data, conform.claimed_recipe(spec.vars))
    return conform.with_deviations(made, compared)
