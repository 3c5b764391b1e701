"""Settings of the documentation site (`make docs`), which Sphinx builds from the Markdown here.

The pages of `reference/` that list fields, benchmarks, commands, metrics and exit codes are written by
`reference/generate.py` from the code before each build, and are not kept.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "reference"), str(HERE.parent)]

import generate  # noqa: E402 - its folder is on the path from here on

import vitpipe  # noqa: E402

generate.write(HERE / "reference" / "generated")

project = "vitpipe"
author = "the vitpipe authors"
version = release = vitpipe.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "notebooks/.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "linkify"]
myst_linkify_fuzzy_links = False
myst_heading_anchors = 4
html_theme = "furo"
html_title = "vitpipe"
html_static_path: list[str] = []
html_show_sphinx = False
suppress_warnings = ["myst.xref_missing"] if "--loose" in sys.argv else []
