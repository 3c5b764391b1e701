"""`python -m pipeline` is `vitpipe`."""

from vitpipe.pipeline.cli.main import main

main()
