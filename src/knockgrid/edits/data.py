"""Interventions and sources as plain data, which is the call that makes them, and back."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from inspect import signature, unwrap
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

from knockgrid import edits, sources
from knockgrid.edits import pairs as pair_rules
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import AllBut
from knockgrid.edits.pairs.rules import PairRule
from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.data import prompt_as_data, prompt_from_data
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.other_run import Swap
from knockgrid.sources.source import Source

OWN = "knockgrid."
"""Where the classes of the drawers lie; any other class is the user's own."""


def as_data(thing: Any) -> Any:
    """An intervention or a source as JSON holds it: `{"kind": "knockout", "window": 9, …}`.

    Parameters that have their default are left out. A prompt is its data, a tensor its dtype, shape
    and sha256; an object of the user's own class is named with its module and a digest.
    """
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, torch.Tensor):
        return {"kind": "tensor", "shape": list(thing.shape), "digest": digest_of(thing)}
    if isinstance(thing, Prompt):
        return {"kind": "prompt", **prompt_as_data(thing)}
    if isinstance(thing, Mapping):
        pairs = {key: as_data(value) for key, value in thing.items()}
        if all(isinstance(key, str) for key in pairs):
            return pairs
        return {"kind": "mapping", "pairs": [list(pair) for pair in pairs.items()]}
    if isinstance(thing, Intervention | Source | Swap | AllBut | PairRule):
        made = type(thing)
        if made.__module__.startswith(OWN):
            kind = re.sub(r"(?<!^)(?=[A-Z])", "_", made.__name__).lower()
            return {"kind": kind, **_parameters(thing, kind)}
        where = f"{made.__module__}:{made.__qualname__}"
        named = {"kind": made.__name__, "class": where, "digest": digest_of(thing)}
        return {**named, **_parameters(thing, made.__name__)}
    if isinstance(thing, Iterable):
        return [as_data(one) for one in thing]
    return {"kind": type(thing).__qualname__, "digest": digest_of(thing)}


def _parameters(thing: Any, kind: str) -> dict[str, Any]:
    """What to give the call: every field that has not its default there."""
    make, found = _function(kind), {}
    takes = signature(make).parameters if make else {}
    for one in fields(thing) if is_dataclass(thing) else ():
        value, default = getattr(thing, one.name), None
        if one.name in takes:
            default = takes[one.name].default
        if default is None:
            default = one.default_factory() if callable(one.default_factory) else one.default
        if one.init and (type(value) is not type(default) or value != default):
            found[one.name] = as_data(value)
    return found


def _function(kind: str) -> Any:
    """The public function of the drawers with this name; None where there is none."""
    drawer = next((one for one in (edits, sources, pair_rules) if kind in one.__all__), None)
    return None if drawer is None else getattr(drawer, kind)


def from_data(data: Any, known: Sequence[Any] = (), model: Any = None) -> Any:
    """What some data describe: an intervention, a source, or the list that a family makes.

    `known` holds what data only name: classes of the user's own, and tensors of `fixed`. `model` is
    for families that ask what a model has, such as `per_module`.
    """
    if isinstance(data, list | tuple):
        return [from_data(one, known, model) for one in data]
    if not isinstance(data, Mapping):
        return data
    rest = dict(data)
    kind = rest.pop("kind", None)
    if kind is None:
        return {key: from_data(value, known) for key, value in rest.items()}
    if kind == "prompt":
        return prompt_from_data(rest)
    if kind == "mapping":
        return {key: from_data(value, known) for key, value in rest["pairs"]}
    if kind == "tensor":
        return _tensor(rest, known)
    where, digest = rest.pop("class", None), rest.pop("digest", None)
    given = {name: _value(name, value, known) for name, value in rest.items()}
    if takes_model(kind) and given.setdefault("model", model) is None:
        raise InputError(f"{kind} asks what a model has, and none is loaded here; name its rows")
    return _called(kind, given) if where is None else _of_the_user(where, digest, given, known)


def takes_model(kind: str) -> bool:
    """Whether a kind asks what a model has, as `per_module` does."""
    make = _function(kind)
    return make is not None and "model" in signature(make).parameters


def _value(name: str, value: Any, known: Sequence[Any]) -> Any:
    """A parameter; a source without parameters may be named alone, as `zero`."""
    if name in ("source", "by", "like") and isinstance(value, str):
        value = {"kind": value}
    return from_data(value, known)


def _called(kind: str, given: dict[str, Any]) -> Any:
    """What a function of the drawers makes, with what only its value carries put in afterwards."""
    make = _function(kind)
    if make is None:
        raise unknown("kind", kind, sorted({*dir(edits), *dir(sources)}))
    if kind == "donor" and "given" in given:  # its field has another name than its parameter
        given["prompt"] = given.pop("given")
    takes = signature(make).parameters
    more = {name: value for name, value in given.items() if name not in takes}
    try:
        made: Any = make(**{name: value for name, value in given.items() if name in takes})
    except TypeError as error:
        raise InputError(f"{kind} cannot be made of {shown(given)}: {error}") from None
    if not more:
        return made
    plain = isinstance(made, Intervention | Source | Swap)
    carried = [one.name for one in fields(made) if one.init] if plain else []
    for name, value in more.items():
        if name not in carried:
            raise unknown(f"parameter of {kind}", name, [*takes, *carried])
        more[name] = tuple(value) if isinstance(value, list) else value
    return replace(made, **more)


def _tensor(data: Mapping[str, Any], known: Sequence[Any]) -> torch.Tensor:
    for one in known:
        if isinstance(one, torch.Tensor) and digest_of(one) == data.get("digest"):
            return one
    raise InputError(
        f"a tensor of shape {data.get('shape')} took part, whose numbers are not kept; give it in "
        "known=[tensor]"
    )


def _of_the_user(where: str, digest: Any, given: dict[str, Any], known: Sequence[Any]) -> Any:
    name = re.split(r"[:.]", where)[-1]
    for one in known:
        if isinstance(one, type) and one.__name__ == name:
            made = one(**given)
            if digest_of(made) != digest:
                raise InputError(f"{where} is not the class that took part: its digest differs")
            return made
    raise InputError(f"{where} took part, a class of your own; give it in known=[{name}]")


def digest_of(thing: Any) -> str:
    """A digest of a value and everything inside it."""
    text = json.dumps(_inside(thing), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _inside(thing: Any) -> Any:
    """A value as JSON: vectors by their bytes, objects by fields and code, functions by code."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, np.generic | np.ndarray):
        return _inside(thing.tolist())
    if isinstance(thing, torch.Tensor):
        flat = thing.detach().to("cpu").contiguous()
        head = f"{flat.dtype}{tuple(flat.shape)}".encode()
        content = flat.reshape(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(head + content).hexdigest()
    if isinstance(thing, Prompt):
        return prompt_as_data(thing)
    if isinstance(thing, Mapping):
        return {str(key): _inside(value) for key, value in thing.items()}
    if isinstance(thing, Sequence):
        return [_inside(value) for value in thing]
    if isinstance(thing, partial):
        return ["partial", _inside((thing.func, thing.args, thing.keywords))]
    if isinstance(thing, FunctionType):
        thing = unwrap(thing)
        held = [cell.cell_contents for cell in thing.__closure__ or ()]
        code = _code(thing.__code__)
        return [thing.__qualname__, code, _inside(thing.__defaults__), _inside(held)]
    if isinstance(thing, type) or hasattr(thing, "__qualname__"):
        return thing.__qualname__
    made = type(thing)
    methods = {} if made.__module__.startswith(OWN) else vars(made)
    code = {k: _code(f.__code__) for k, f in methods.items() if isinstance(f, FunctionType)}
    if is_dataclass(thing):
        held = {one.name: getattr(thing, one.name) for one in fields(thing)}
    else:
        held = dict(sorted(getattr(thing, "__dict__", {}).items()))
    return [made.__qualname__, code, _inside(held)]


def _code(code: CodeType) -> list[Any]:
    """What a function does: two lambdas in one place have the same name."""
    consts = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), consts]
