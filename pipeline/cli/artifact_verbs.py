"""The verbs that list, fetch, verify and push what a run made. They read the store alone."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitpipe.pipeline.cli.plan_verbs import AsJson
from vitpipe.pipeline.cli.run_verbs import NodeName, RunName
from vitpipe.pipeline.cli.terminal import answer, complain, print_json, say

artifacts = typer.Typer(
    help="List, fetch, verify and push what a run made.", no_args_is_help=True, rich_markup_mode=None
)
OneNode = Annotated[str, typer.Argument(help="NODE or NODE/ID.", show_default=False)]


@artifacts.command("ls")
def ls(run: RunName, node: NodeName = None, as_json: AsJson = False) -> None:
    """List the files of every committed node, or of one: size, digest, name, and the object that holds it."""
    from vitpipe.pipeline.store.retrieval import list_files
    from vitpipe.pipeline.store.runs import find_run

    found = list_files(find_run(run, complain).uri, node)
    if as_json:
        print_json({"files": [asdict(one) for one in found]})
        return
    for one in found:
        say(f"{one.bytes:>14,}  {one.sha256[:12]}  {one.node}/{one.path}  {one.uri}")


@artifacts.command("get")
def get(
    run: RunName,
    node: OneNode,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.", show_default=False)],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only files that match, such as 'native/*'; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a node's files here, resuming what was begun, every byte checked against the record."""
    from vitpipe.pipeline.cli.bars import transfer_bar
    from vitpipe.pipeline.store.retrieval import get as fetch
    from vitpipe.pipeline.store.runs import find_run

    with transfer_bar(f"get {node}", hidden=as_json) as progress:
        paths = fetch(find_run(run, complain).uri, node, folder, progress, only or ())
    answer(as_json, {"paths": [str(path) for path in paths]}, f"{len(paths)} files in {folder}, verified")


@artifacts.command("verify")
def verify(
    run: RunName,
    node: NodeName = None,
    readback: Annotated[
        bool, typer.Option("--readback", help="Read each shard with webdataset, too: all has to be as its index says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every byte of every committed node, or of one, and compare it with the records."""
    from vitpipe.pipeline.cli.bars import transfer_bar
    from vitpipe.pipeline.store.retrieval import fault
    from vitpipe.pipeline.store.retrieval import verify as check
    from vitpipe.pipeline.store.runs import find_run
    from vitpipe.pipeline.store.verify_readback import read_shards_back

    uri = find_run(run, complain).uri
    steps = {"verify": check, **({"read back": read_shards_back} if readback else {})}
    found = {}
    for name, step in steps.items():
        with transfer_bar(name, hidden=as_json) as progress:
            found[name] = step(uri, node, progress)
        if error := fault(uri, found[name]):
            raise error
    if as_json:
        keys = {"verify": "files", "read back": "read_back"}
        print_json({keys[name]: [asdict(one) for one in findings] for name, findings in found.items()})
        return
    total = sum(one.bytes for one in found["verify"])
    say(f"{uri}: {len(found['verify'])} files, {total:,} bytes, all as recorded")
    if readback:
        say(f"{uri}: {len(found['read back'])} shards, read by webdataset as their indexes say")


@artifacts.command("push")
def push(
    run: RunName,
    node: OneNode,
    place: Annotated[str, typer.Argument(metavar="hf://OWNER/NAME", help="The repository.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite files there that vitpipe did not write; their history stays.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring weights or shards to the Hugging Face Hub by one commit: files, card, results. A second time does nothing.

    A model's own files are those of `huggingface`, else `timm`, else `native`; other formats stand in folders. The
    token is HF_TOKEN or that of `hf auth login`, the address HF_ENDPOINT; `@branch` behind the name pushes to a branch.
    """
    from vitpipe.pipeline.cli.bars import transfer_bar
    from vitpipe.pipeline.store.publication import publish
    from vitpipe.pipeline.store.runs import find_run

    with transfer_bar(f"push {node}", hidden=as_json) as progress:
        done = publish(find_run(run, complain).uri, node, place, progress, private=private, replace=replace)
    told = f"{done.url}: {len(done.written)} files written"
    told += f", {len(done.removed)} removed" if done.removed else ""
    told = told if done.written or done.removed else f"{done.url}: nothing to push, all is there"
    told += f"; left as edited there: {', '.join(done.left)}" if done.left else ""
    answer(as_json, asdict(done), f"{told}; commit {done.commit}")
