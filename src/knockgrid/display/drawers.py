"""Drawers: what their stubs name, read as text, as a Tab must answer before torch is imported."""

import ast
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def exported(drawer: str) -> dict[str, str]:
    """The names that the stub of a drawer, such as `sources`, gives, each with its module."""
    lines = ast.parse(_text(drawer, "__init__.pyi")).body
    imports = [line for line in lines if isinstance(line, ast.ImportFrom)]
    return {one.name: str(line.module) for line in imports for one in line.names}


def functions(drawer: str) -> dict[str, ast.FunctionDef]:
    """The functions among these names, as they are written."""
    named = exported(drawer)
    parsed = {module: ast.parse(_text(drawer, f"{module}.py")).body for module in named.values()}
    made = {
        (module, one.name): one
        for module, body in parsed.items()
        for one in body
        if isinstance(one, ast.FunctionDef)
    }
    return {name: made[at] for name, module in named.items() if (at := (module, name)) in made}


def _text(drawer: str, name: str) -> str:
    room: Any = files("knockgrid").joinpath(*drawer.split("."))
    return room.joinpath(name).read_text("utf-8")
