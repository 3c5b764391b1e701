"""What runs, in which order. Knows stages by their config and artifacts; imports no torch."""

import sys

if __name__ != "vitpipe.pipeline" and sys.argv[0] != "-m":  # `python -m pipeline` may find its `__main__.py` here
    raise ImportError("import it as vitpipe.pipeline")
