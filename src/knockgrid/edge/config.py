"""SweepConfig: the settings of a run, the same for Python, files and flags."""

import hashlib
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knockgrid._errors import InputError, unknown

SOURCES = ("noise", "noise:K", "swap", "zero", "mean")
ROWS = ("subject", "attention", "last")
WHERE = ("device", "device_map")
"""Settings that say where a run is computed, not what: a run goes on elsewhere, and every shard
records the hardware that computed it."""


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
    n_tokens: int = 1
    mode: str = "prompt_only"
    unit: str = "nats"
    samples: int = 1
    direction: str = "noise"
    executor: str = "auto"
    prepend_bos: bool | None = None
    seed: int = 0
    batch: int = Field(32, ge=1)

    def digest(self) -> str:
        """A digest of all settings but those in `WHERE`, in their canonical JSON form."""
        return hashlib.sha256(self.model_dump_json(exclude=set(WHERE)).encode()).hexdigest()[:16]


def read_config(path: Path | None, flags: dict[str, Any]) -> SweepConfig:
    """Settings from a YAML or TOML file, overridden by the flags that were given.

    Raises:
        InputError: a file that cannot be read, or a setting that does not exist or fit.
    """
    settings = {} if path is None else _load(path)
    settings.update({key: value for key, value in flags.items() if value is not None})
    try:
        return SweepConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if first["type"] == "extra_forbidden":
            raise unknown("setting", name, SweepConfig.model_fields) from None
        raise InputError(f"setting {name!r} is {first['input']!r}: {first['msg']}") from None


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no settings file {str(path)!r}; check the path")
    text = path.read_text("utf-8")
    if path.suffix in (".yaml", ".yml"):
        loaded = _yaml(text, path)
    elif path.suffix == ".toml":
        loaded = _toml(text, path)
    else:
        raise unknown("kind of settings file", path.suffix, [".yaml", ".yml", ".toml"])
    if not isinstance(loaded, dict):
        raise InputError(f"{path.name} holds no settings; write lines such as 'model: demo'")
    return loaded


def _yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path.name} is not YAML ({reason})") from None


def _toml(text: str, path: Path) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not TOML ({error})") from None


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
