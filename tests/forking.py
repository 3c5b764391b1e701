"""Processes that begin with everything imported: forked off one server, whichever test asks for it first."""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from unittest import mock

PRELOADED = [
    "deepspeed",
    "vitpipe.stages.pretrain.rank",
    "vitpipe.stages.training.measure.event_file",
    "webdataset",
    "vitpipe.stages.images.iterable",
    "vitpipe.stages.ingest.write.writer",
    "photos",
]


def processes() -> ForkServerContext:
    """Start the server if need be: it has imported what takes seconds, and has done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context
