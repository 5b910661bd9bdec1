"""SweepConfig: the settings of a run, the same for Python, files and flags."""

import hashlib
import math
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from knockgrid.errors import InputError, cut, shown, unknown
from knockgrid.engine.memory import LEAST, bytes_of
from knockgrid.runs.closed import CLOSED

SOURCES = ("noise", "noise:K", "swap", "zero", "mean")
ROWS = ("subject", "attention", "last")
FORMS = ("plain", "chat")
BOUNDS = ("max_rows", "max_memory", "threads")
"""Settings that bound memory and threads, and decide nothing of a run but its last digits.

Two runs that differ in them only are the same one, so that what was begun on a large machine can go
on where less fits at once.
"""
WHERE = ("device", "device_map")
"""Settings that say where a run is computed, not what: a run goes on elsewhere, and every shard
records the hardware that computed it."""
LARGEST = 2**16
"""Bytes of a settings file."""


class SweepConfig(BaseModel):
    """Everything that decides what a run computes, and where; the hash of what identifies it.

    Example:
        >>> SweepConfig(layers=[0, 5]).digest() == SweepConfig(layers=[0, 5]).digest()
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "demo"
    revision: str | None = None
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    device: str | None = None
    device_map: str | None = None
    prompts: str = "facts"
    columns: dict[str, str] = Field(default_factory=dict)
    template: str | None = None
    form: str = "plain"
    relations: tuple[str, ...] | None = None
    known: bool = False
    limit: int | None = Field(None, ge=1)
    unknown: int = Field(0, ge=0)
    labels: bool = False
    label_form: str | None = None
    contrasts: bool = False
    nulls: bool = False
    noise_floor: bool = True
    rows: tuple[str, ...] = ROWS
    source: tuple[str, ...] = ("noise",)
    noise: float = 3.0
    window: tuple[int | str, ...] = (5,)
    act_name: str = "resid_post"
    layers: Literal["all"] | tuple[int, ...] = "all"
    n_tokens: int = Field(1, ge=1)
    mode: str = "prompt_only"
    unit: str = "nats"
    samples: int = Field(1, ge=1)
    direction: str = "noise"
    executor: str = "auto"
    prepend_bos: bool | None = None
    seed: int = 0
    batch: int = Field(32, ge=1)
    top: int = Field(10, ge=0)
    max_rows: int | None = Field(None, ge=LEAST)
    max_memory: int | str | None = None
    threads: int | None = Field(None, ge=1)

    @field_validator("max_memory")
    @classmethod
    def _readable(cls, given: int | str | None) -> int | None:
        return bytes_of(given)

    def digest(self) -> str:
        """A digest of the settings that decide, in their canonical JSON form."""
        text = self.model_dump_json(exclude={*BOUNDS, *WHERE})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_config(path: Path | None, flags: dict[str, Any]) -> SweepConfig:
    """Settings from a YAML or TOML file, overridden by the flags that were given.

    Raises:
        InputError: a file that cannot be read, or a setting that does not exist or fit.
    """
    settings = {} if path is None else _load(path)
    settings.update({key: value for key, value in flags.items() if value is not None})
    for name, allowed in CLOSED.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise unknown(name, settings[name], allowed)
    for name in ("form", "label_form"):
        check_form(name, settings.get(name))
    try:
        config = SweepConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if first["type"] == "extra_forbidden":
            raise unknown("setting", name, SweepConfig.model_fields) from None
        raise InputError(
            f"setting {shown(name)} is {shown(first['input'])}: {first['msg']}"
        ) from None
    for name, value in config:
        _sound(name, value)
    return config


def check_form(name: str, given: Any) -> None:
    """Refuse a form that is neither one of those that there are nor a template.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, str) and given not in FORMS and "{}" not in given:
        raise unknown(name, given, (*FORMS, "a text that ends with {}"))


def _sound(name: str, value: Any) -> None:
    """Refuse what a manifest cannot hold: NUL, lone surrogates, numbers that are not finite."""
    several = [*value, *value.values()] if isinstance(value, dict) else value
    for one in several if isinstance(several, tuple | list) else (several,):
        if isinstance(one, str) and ("\0" in one or any("\ud800" <= c <= "\udfff" for c in one)):
            raise InputError(
                f"setting {name!r} is {shown(one)}, which is not text that can be kept"
            )
        if isinstance(one, float) and not math.isfinite(one):
            raise InputError(f"setting {name!r} is {one}; give a finite number")


def _load(path: Path) -> dict[str, Any]:
    loaders = {".yaml": _yaml, ".yml": _yaml, ".toml": _toml}
    if path.suffix not in loaders:
        raise unknown("kind of settings file", path.suffix, loaders)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise InputError(f"there is no settings file {shown(str(path))}; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"settings file {shown(str(path))} cannot be read ({getattr(error, 'strerror', error)})"
        ) from None
    if len(content) > LARGEST:
        raise InputError(f"{path.name} is larger than {LARGEST:,} bytes; settings are a few lines")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    try:
        loaded = loaders[path.suffix](text, path)
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply; settings are flat") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path.name} holds no settings; write lines such as 'model: demo'")
    for name in loaded:
        if not isinstance(name, str):
            raise unknown("setting", name, SweepConfig.model_fields)
    return loaded


def _yaml(text: str, path: Path) -> Any:
    import yaml

    from knockgrid.runs.plain_yaml import plain_yaml

    try:
        loaded = plain_yaml(text)
        return {} if loaded is None else loaded
    except yaml.YAMLError as error:
        reason = cut(" ".join(str(error).split()), 200)
        raise InputError(f"{path.name} is not YAML ({reason})") from None


def _toml(text: str, path: Path) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]

    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        reason = cut(str(error), 200)
        raise InputError(f"{path.name} is not TOML ({reason})") from None


def config_of(folder: Path, manifest: dict[str, Any]) -> SweepConfig:
    """The settings in a manifest.

    Raises:
        InputError: those of a run that was begun from Python; settings that this version does not
            know, or that were damaged.
    """
    given = manifest.get("config", {})
    if "interventions" in given:
        raise InputError(
            f"{folder} was begun from Python, with interventions that its manifest describes but "
            "cannot make again; give `knockgrid sweep` the settings, or do it in that script"
        )
    try:
        return SweepConfig.model_validate(manifest["config"])
    except (ValidationError, KeyError) as error:
        what = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise InputError(
            f"the settings in the manifest of {folder} cannot be read ({what}); they were changed, "
            "or come from another version of knockgrid"
        ) from None
