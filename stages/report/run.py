"""Report: one offline page of what a run found, and the same facts for programs in files next to it. No torch.

Everything is read through records: scores, what they rest on, and how long it took.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vitpipe.stages.artifacts import Artifact, Checkpoint, Report, Score, ShardSet, Weights, carries_weights
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.report import overview, pretraining
from vitpipe.stages.report.captions import captions
from vitpipe.stages.report.card import report_json, results_csv
from vitpipe.stages.report.caveats import shared_penalties, survived
from vitpipe.stages.report.certainty import levels
from vitpipe.stages.report.config import ReportConfig
from vitpipe.stages.report.costs import costs
from vitpipe.stages.report.downloads import downloads
from vitpipe.stages.report.gallery import Drawn, DrawTask, Pictures, WrongTask
from vitpipe.stages.report.headline import beside_strongest, headline
from vitpipe.stages.report.lead import lead
from vitpipe.stages.report.mistakes import mistakes, speeds
from vitpipe.stages.report.model_card import loading, model_card
from vitpipe.stages.report.overlap import overlaps
from vitpipe.stages.report.page import render, score_charts
from vitpipe.stages.report.paper_comparison import grids
from vitpipe.stages.report.record_lineage import LineageNode, benchmarks, data_of, walk
from vitpipe.stages.report.resolution import resolutions
from vitpipe.stages.report.results import gains, rows
from vitpipe.stages.report.scaling import over_labels, over_pretraining, pretrainings
from vitpipe.stages.report.wrong_images import wrong_tasks
from vitpipe.stages.tasks import gather


def run(config: ReportConfig, inputs: Inputs, ctx: StageContext) -> Report:
    """Write the page and its companions. IntegrityError when a file that it rests on is not what its record says."""
    lineage = walk(artifact for name in inputs.names() for artifact in inputs.many(name, Artifact))
    checkpoints = overview.upstream(lineage, Checkpoint, chosen=inputs.maybe("checkpoint", Checkpoint))
    newest = checkpoints[-1] if checkpoints else None
    scores = inputs.many("scores", Score)
    nodes, named = {node.uri: node.name for node in lineage}, benchmarks(lineage)
    table, known = rows(scores, named, nodes), pretrainings(lineage)
    found, data = gains(table), data_of(lineage)
    reached = levels(scores, data)
    sentence, heading = headline(table, found), config.title or ctx.run
    run_uri = ctx.out.node.uri.removesuffix(f"/{ctx.node}")
    results = results_csv(table, run_uri, lineage)
    pictures = _draw(config, ctx, inputs, lineage, wrong_tasks(scores, data, nodes, named))
    page = render(
        title=heading,
        headline=sentence,
        lead=lead(table, found, reached),
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        run=ctx.run,
        run_uri=run_uri,
        spec_uri=f"{run_uri}/spec.yaml".removeprefix("file://"),
        charts=score_charts(table, reached),
        strongest=beside_strongest(table),
        rows=table,
        gains=found,
        resolutions=resolutions(table),
        glance=overview.key_figures(newest[1] if newest else None, lineage),
        grids=grids(table, known),
        labels_charts=over_labels(table),
        pretraining_charts=over_pretraining(table, known),
        costs=costs(lineage, known),
        downloads=downloads(table, results),
        **_trained(newest),
        **_measured(scores, nodes),
        troubles=survived(run_uri),
        pictures=pictures,
        captions=captions(pictures.inside) if pictures.inside else {},
        overlaps=overlaps(lineage),
        lineage=lineage,
        parity=overview.parity(overview.upstream(lineage, Weights)),
        versions=overview.versions(lineage),
    )
    files = (
        ctx.out.put("index.html", page.encode(errors="backslashreplace")),
        ctx.out.put("report.json", report_json(sentence, table, found, lineage, pictures.inside)),
        ctx.out.put("results.csv", results),
        ctx.out.put("README.md", model_card(heading, sentence, table, run_uri, loading(lineage, scores))),
    )
    return Report(headline=sentence, files=files)


def _trained(newest: tuple[str, Checkpoint] | None) -> dict[str, Any]:
    """What the page tells of the newest pretraining, where there is one."""
    return {
        "curves": pretraining.curves(newest[1]) if newest else [],
        "spent": pretraining.spent(newest[1]) if newest else [],
        "pretraining": overview.pretraining(*newest) if newest else "",
    }


def _measured(scores: Sequence[Score], nodes: Mapping[str, str]) -> dict[str, Any]:
    """What the page tells of the scores beyond their values."""
    return {
        "penalties": shared_penalties(scores),
        "mistakes": mistakes(scores, nodes),
        "tuning_curves": pretraining.finetuning_curves(scores, nodes),
        "speeds": speeds(scores, nodes),
    }


def _draw(
    config: ReportConfig, ctx: StageContext, inputs: Inputs, lineage: Sequence[LineageNode], wrong: Sequence[WrongTask]
) -> Pictures:
    data = overview.upstream(lineage, ShardSet)
    task = DrawTask(
        weights=_model_source(config, inputs, lineage),
        images=inputs.maybe("shards", ShardSet) or (data[0][1] if data else None),
        data=tuple(data),
        wrong=tuple(wrong),
        config=config,
        cpus=ctx.resources.whole_cpus,
        context=ctx.task,
    )
    ((_, drawn),) = gather(ctx.cluster.fan(_draw_task, [task], resources=ctx.resources, label=lambda _: "draw"))
    return drawn


def _model_source(config: ReportConfig, inputs: Inputs, lineage: Sequence[LineageNode]) -> Drawn | None:
    """Choose what to look into: the step that the config names; else the weights given, the newest converted ones
    upstream of the scores, a score's own, or the newest checkpoint."""
    if config.step is not None:
        return inputs.one("checkpoint", Checkpoint)
    known = [*inputs.many("weights", Artifact), *(weights for _, weights in overview.upstream(lineage, Weights)[::-1])]
    known += [score for score in inputs.many("scores", Score) if score.protocol.get("pretrained")]
    native: list[Drawn] = [one for one in known if carries_weights(one) and one.has("native/model.safetensors")]
    chosen = inputs.maybe("checkpoint", Checkpoint)
    steps = [one for _, one in overview.upstream(lineage, Checkpoint, chosen=chosen)]
    whole = [one for one in steps if one.has(f"{one.folder}/manifest.json")]
    return next(iter([*native, *whole[::-1]]), None)


def _draw_task(task: DrawTask) -> Pictures:
    from vitpipe.stages.report.pictures import draw  # torch is imported only where the work runs

    return draw(task)
