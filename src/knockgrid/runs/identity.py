"""Identity: the settings of a run that was begun from Python, as JSON that tells two runs apart."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

from knockgrid.edits.intervention import Intervention
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.prompt_lines import line_of


def identity(interventions: Sequence[Intervention], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were given, and a digest of everything that an intervention holds.

    Example:
        >>> from knockgrid.edits import knockout
        >>> one, other = (identity([knockout(window=w)], {"seed": 0}) for w in (5, 9))
        >>> one["seed"] == other["seed"], one["interventions"] == other["interventions"]
        (True, False)
    """
    rows = {one.name: digest_of(one) for one in interventions}
    return {"interventions": rows, **{name: plain(value) for name, value in options.items()}}


def digest(settings: Mapping[str, Any]) -> str:
    """A digest of settings, in their canonical JSON form."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def digest_of(thing: Any) -> str:
    """A digest of a value and everything inside it."""
    text = json.dumps(plain(thing), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def plain(thing: Any) -> Any:
    """A value as JSON: vectors by their digest, objects by fields, functions by their code."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, np.generic | np.ndarray):
        return plain(thing.tolist())
    if isinstance(thing, torch.Tensor):
        return _digest_of_tensor(thing)
    if isinstance(thing, Prompt):
        return line_of(thing)
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, Sequence):
        return [plain(value) for value in thing]
    if is_dataclass(thing) and not isinstance(thing, type):
        inside = {field.name: plain(getattr(thing, field.name)) for field in fields(thing)}
        return {"type": type(thing).__qualname__, **inside}
    if isinstance(thing, partial):
        return {"type": "partial", "of": plain((thing.func, thing.args, thing.keywords))}
    if isinstance(thing, FunctionType):
        inside = [cell.cell_contents for cell in thing.__closure__ or ()]
        holds = [thing.__defaults__, thing.__kwdefaults__, inside]
        return {"type": thing.__qualname__, "code": _code(thing.__code__), "holds": plain(holds)}
    named = getattr(thing, "__qualname__", None)
    inside = {} if named else {k: plain(v) for k, v in sorted(vars(thing).items())}
    return {"type": named or type(thing).__qualname__, **inside}


def _code(code: CodeType) -> list[Any]:
    """What a function does: two lambdas in one place have the same name."""
    consts = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), consts]


def _digest_of_tensor(tensor: torch.Tensor) -> str:
    flat = tensor.detach().to("cpu").contiguous()
    head = f"{flat.dtype}{tuple(flat.shape)}".encode()
    return hashlib.sha256(head + flat.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
