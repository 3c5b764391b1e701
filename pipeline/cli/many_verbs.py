"""The verbs that look at many runs: what a store holds, how two differ, and a table and a page of several."""

from pathlib import Path
from typing import Annotated

import typer

from vitpipe.pipeline.cli import terminal
from vitpipe.pipeline.cli.plan_verbs import AsJson

many = typer.Typer()

RunName = Annotated[str, typer.Argument(metavar="RUN", help="STORE/NAME, or the YAML.", show_default=False)]
Price = Annotated[float | None, typer.Option("--price-per-gpu-hour", min=0, max=1e9, help="In any currency.")]


@many.command("ls")
def list_runs(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A URI, a folder, or a run's YAML.")] = "runs",
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of a store: state, age, scores and cost, the newest first."""
    from vitpipe.pipeline.cli import run_listing
    from vitpipe.pipeline.store.many_runs import find_store, runs_in

    place = find_store(store, terminal.complain)
    found = runs_in(place)
    if as_json:
        terminal.print_json({"store": place.uri, "runs": [run_listing.run_json(run, price) for run in found]})
    elif not found:
        terminal.say(f"{place.uri}: no runs")
    elif terminal.is_terminal():
        from vitpipe.pipeline.cli import display

        display.show(run_listing.listing(place.uri, found, price))
    else:
        for run in found:
            terminal.say(run_listing.listing_line(run, price))


@many.command()
def diff(a: RunName, b: RunName, as_json: AsJson = False) -> None:
    """Say in which fields two runs differ, node by node, as drift is said; nodes of equal fingerprint are equal."""
    from vitpipe.pipeline.cli import run_tables
    from vitpipe.pipeline.plan.comparison import compare as compared
    from vitpipe.pipeline.store.many_runs import named_runs

    found = compared(named_runs((a, b), terminal.complain), inputs=True)
    if as_json:
        terminal.print_json(run_tables.diff_json(found))
        return
    for line in run_tables.diff_lines(found):
        terminal.say(line)


@many.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="STORE/NAME, or YAMLs.", show_default=False)],
    only: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="Only these fields, by name or its end.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as CSV.")] = None,
    latex: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table for LaTeX (booktabs).")] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the page goes; else among the logs.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Lay runs out in a table (what differs, scores, cost) and on one offline page with their curves."""
    from vitpipe.pipeline.cli import run_page, run_tables
    from vitpipe.pipeline.cli.report_pages import open_page
    from vitpipe.pipeline.plan.comparison import compare as compared
    from vitpipe.pipeline.store.many_runs import named_runs

    found = compared(named_runs(runs, terminal.complain))
    words = [word.strip() for word in only.split(",") if word.strip()] if only is not None else []
    fields = found.chosen(words) if words else found.fields
    table = run_tables.table(found, fields, price)
    for path, text in ((csv, table.csv), (latex, table.latex)):
        if path:
            run_page.write(path, text())
    page = None
    if to or open_it or not as_json:
        page = run_page.write(to or run_page.place(table.names), run_page.page(found, fields, table))
    if as_json:
        terminal.print_json(run_tables.compare_json(found, fields, price) | ({"page": str(page)} if page else {}))
    elif terminal.is_terminal():
        from vitpipe.pipeline.cli import display

        display.show(table.shown())
    else:
        for line in table.lines():
            terminal.say(line)
    if page and not as_json:
        for line in run_tables.notes(found):
            terminal.say(line)
        terminal.say(f"the page: {page}")
    if page and open_it and not open_page(page) and not as_json:
        terminal.complain(f"there is no browser here: copy {page} to a machine that has one")
