"""`python -m pipeline` is `vitpipe`."""

from pipeline.cli import main

main()
