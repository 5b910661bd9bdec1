"""How Sphinx builds the documentation: `nox -s docs`."""

import os
import re
from importlib.metadata import version as installed_version

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # not on a page

project = "knockgrid"
author = "the knockgrid developers"
copyright = f"2026, {author}"
version = release = installed_version("knockgrid")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute", "**/.ipynb_checkpoints"]

# Every page with code is executed, each time, and a page that fails is an error.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_ipywidgets_js = {}  # no page asks another server for a progress bar

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # `name` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"knockgrid {release}"
html_copy_source = False
html_show_sourcelink = False

PARAGRAPH = re.compile(r"(Sources?|Limits?): (?=\S)")


def own_paragraphs(app, what, name, obj, options, lines):
    """In the reference, `Source:` and `Limit:` each begin a paragraph, in bold."""
    lines[:] = [
        part
        for line in lines
        for part in (["", PARAGRAPH.sub(r"**\1.** ", line)] if PARAGRAPH.match(line) else [line])
    ]


def setup(app):
    # Before napoleon, which takes a line that ends in a colon for the title of a section.
    app.connect("autodoc-process-docstring", own_paragraphs, priority=400)
