"""How Sphinx builds the documentation: `nox -s docs`."""

import ast
import os
import re
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

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


ROOM = re.compile(r"^<!-- room: (\w+) -->$", re.M)


def exported(stub):
    """The public names of a stub, each with the module that it comes from."""
    found = ast.parse(Path(stub).read_text("utf-8")).body
    found = [node for node in found if isinstance(node, ast.ImportFrom)]
    return {alias.asname: node.module or "" for node in found for alias in node.names}


def names_by_room():
    """Every public name by its room; those at the top stand without the room's name."""
    package = Path(find_spec("knockgrid").origin).parent
    top = exported(package / "__init__.pyi")
    rooms = {name: f"{module}/{name}".strip("/") for name, module in top.items()}
    rooms = {name: package / path for name, path in rooms.items() if (package / path).is_dir()}
    found = {}
    for name, module in top.items():
        if name not in rooms:
            found.setdefault(module.split(".")[0], []).append(f"knockgrid.{name}")
    for room, folder in rooms.items():
        own = [name for name in exported(folder / "__init__.pyi") if name not in top]
        found.setdefault(room, []).extend(f"knockgrid.{room}.{name}" for name in own)
    return found


def entry(name):
    """What autodoc is asked for a public name."""
    import knockgrid

    thing = knockgrid
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)
    if isinstance(thing, type):
        return f".. autoclass:: {name}\n   :members:"
    return f".. autofunction:: {name}"


def fill_rooms(app, docname, source):
    """The reference lists what the stubs export, and no page of its own does."""
    rooms = names_by_room()
    source[0] = ROOM.sub(
        lambda m: "\n".join(["```{eval-rst}", *map(entry, rooms[m.group(1)]), "```"]), source[0]
    )


def setup(app):
    app.connect("source-read", fill_rooms)
    # Before napoleon, which takes a line that ends in a colon for the title of a section.
    app.connect("autodoc-process-docstring", own_paragraphs, priority=400)
