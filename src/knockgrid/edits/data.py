"""Stand-in until the data form of edits arrives."""

from dataclasses import fields, is_dataclass
from typing import Any

from knockgrid import edits, sources


def as_data(thing: Any) -> dict[str, Any]:
    kind = {"Patch": "patch", "Knockout": "knockout", "EdgePatch": "edge_patch"}.get(
        type(thing).__name__
    )
    names = {"CorruptedRun": "corrupted_run", "RandomDirection": "random_direction"}
    kind = kind or names.get(type(thing).__name__, type(thing).__name__.lower())
    out = {"kind": kind}
    for f in fields(thing):
        v = getattr(thing, f.name)
        if is_dataclass(v):
            v = as_data(v)
        if isinstance(v, tuple):
            v = list(v)
        out[f.name] = v if isinstance(v, str | int | float | bool | dict | list | None) else repr(v)
    return out


def from_data(data: Any, known: Any = ()) -> Any:
    if isinstance(data, str):
        data = {"kind": data}
    rest = {k: from_data(v) if isinstance(v, dict) else v for k, v in data.items() if k != "kind"}
    more = {
        k: rest.pop(k) for k in ("head", "module", "position", "role", "of", "n_rows") if k in rest
    }
    rest = {("heads" if k == "head_index" else k): v for k, v in rest.items()}
    if rest.get("source", 1) is None:
        rest.pop("source")
    make = getattr(edits, data["kind"], None) or getattr(sources, data["kind"])
    made = make(**rest)
    if more and not isinstance(made, list):
        from dataclasses import replace

        more.pop("n_rows", None)
        made = replace(made, **more)
    return made
