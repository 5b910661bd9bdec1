"""Drawers: what their stubs name, read as text, as a Tab must answer before torch is imported."""

import ast
from importlib.resources import files
from typing import Any


def exported(drawer: str) -> dict[str, ast.Module]:
    """The names of a drawer, such as `sources`, each with the code of its file."""
    room: Any = files("knockgrid").joinpath(*drawer.split("."))
    found = {}
    for line in ast.parse(room.joinpath("__init__.pyi").read_text("utf-8")).body:
        if isinstance(line, ast.ImportFrom):
            code = ast.parse(room.joinpath(f"{line.module}.py").read_text("utf-8"))
            found |= {one.name: code for one in line.names}
    return found
