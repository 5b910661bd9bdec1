"""Study files: a `Spec` read from YAML, with the shell's flags on top, or from a manifest."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, ValidationError, create_model

from knockgrid.engine.memory import LEAST, bytes_of
from knockgrid.errors import InputError, cut, shown, unknown
from knockgrid.prompts.data import prompt_as_data
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.plain_yaml import plain_yaml
from knockgrid.spec import FIELDS, Spec, allowed

OBJECTS = ("model", "prompts", "interventions", "metrics", "executor", "exact_answer")
"""Fields that may have held objects of the user's own."""
FORMS = ("plain", "chat")
LARGEST = 2**16
"""Bytes of a study file."""


def read_spec(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Spec:
    """The spec in a YAML file, with the flags that were given on top.

    Example:
        >>> read_spec(flags={"layers": (0, 15)}).layers
        (0, 15)

    Raises:
        InputError: a file that cannot be read, or a field that does not exist or fit.
    """
    values = {} if path is None else _load(path)
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    return checked(values)


def checked(values: Mapping[Any, Any]) -> Spec:
    """A spec of plain values, every one of which fits its field."""
    for name, value in values.items():
        if name not in FIELDS:
            raise unknown("setting", name, FIELDS)
        if (choices := allowed(name)) and name != "layers" and value not in choices:
            raise unknown(name, value, choices)
        for one in _leaves(value):
            _refuse_unkept(name, one)
    for name in ("form", "label_form"):
        check_form(name, values.get(name))
    try:
        found = _model()(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise InputError(
            f"setting {shown(name)} is {shown(first['input'])}: {first['msg']}"
        ) from None
    given = {name: getattr(found, name) for name in FIELDS}
    return Spec(**{**given, "max_memory": bytes_of(given["max_memory"])})


def _model() -> Any:
    """The fields of a spec as pydantic checks them."""
    made: dict[str, Any] = {}
    for name, one in FIELDS.items():
        least = LEAST if name == "max_rows" else one.metadata["least"]
        default = {} if name == "columns" else one.default
        made[name] = (one.metadata["kind"], Field(default, ge=least))
    return create_model("Spec", __config__=ConfigDict(extra="forbid"), **made)


def check_form(name: str, given: Any) -> None:
    """Refuse a form that is neither one of those that exist nor a template."""
    if isinstance(given, str) and given not in FORMS and "{}" not in given:
        raise unknown(name, given, (*FORMS, "a text that ends with {}"))


def _leaves(value: Any) -> Iterator[Any]:
    inside = [*value, *value.values()] if isinstance(value, Mapping) else value
    if isinstance(inside, list | tuple):
        for one in inside:
            yield from _leaves(one)
    else:
        yield value


def _refuse_unkept(name: str, value: Any) -> None:
    """Refuse what a manifest cannot hold: NUL, lone surrogates, numbers that are not finite."""
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise InputError(f"setting {name!r} is {shown(value)}, which is not text that can be kept")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"setting {name!r} is {value}; give a finite number")


def _load(path: Path) -> dict[Any, Any]:
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("kind of study file", path.suffix, (".yaml", ".yml"))
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise InputError(f"there is no study file {shown(str(path))}; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"study file {shown(str(path))} cannot be read ({reason})") from None
    if len(content) > LARGEST:
        raise InputError(f"{path.name} is larger than {LARGEST:,} bytes; a study is a few lines")
    try:
        loaded = plain_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        reason = cut(" ".join(str(error).split()), 200)
        raise InputError(f"{path.name} is not YAML ({reason})") from None
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply; a study is nearly flat") from None
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise InputError(f"{path.name} holds no settings; write lines such as 'model: demo'")
    return loaded


def as_yaml(spec: Spec) -> str:
    """A study file that says what a spec says, without the fields that have their default."""
    plain, default = spec.plain(), Spec().plain()
    if not isinstance(spec.prompts, str):
        plain["prompts"] = [_row(one) for one in spec.prompts]
    changed = {name: value for name, value in plain.items() if value != default[name]}
    return yaml.safe_dump(changed or {"model": spec.model}, sort_keys=False, allow_unicode=True)


def _row(prompt: Prompt | Mapping[str, Any]) -> Mapping[str, Any]:
    """A prompt as a row of a study file, which names a partner by its id."""
    if isinstance(prompt, Mapping):
        return prompt
    data = {name: value for name, value in prompt_as_data(prompt).items() if value}
    return {**data, "swap": prompt.swap.id} if prompt.swap else data


def spec_of(folder: Path, manifest: Mapping[str, Any]) -> Spec:
    """The spec in a manifest."""
    config = manifest["config"]
    strange = [name for name in config if name not in FIELDS]
    lacks = [name for name in FIELDS if name not in config]
    try:
        if strange or lacks:
            raise InputError(repr([*strange, *lacks][0]))
        checked({name: value for name, value in config.items() if name not in OBJECTS})
    except InputError as error:
        raise InputError(
            f"the settings in the manifest of {folder} cannot be read ({error}); they were "
            "changed, or come from a different version of knockgrid"
        ) from None
    return Spec(**config)
