"""Layer lists as a user gives them, and the set of layers that one cell edits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from knockgrid.errors import InputError, as_int, shown, unknown
from knockgrid.table.summary import ranges

RULES = ("only", "all_but", "from", "up_to")


@dataclass(frozen=True)
class AllBut:
    """The frozen value behind `all_but()`."""

    layers: "int | tuple[int, ...]"

    def __str__(self) -> str:
        return (
            f"all but {self.layers if isinstance(self.layers, int) else ranges(self.layers, '-')}"
        )


Window = int | str | Sequence[int] | AllBut
Layers = str | int | Sequence[int] | AllBut | None


def all_but(layers: int | Iterable[int]) -> AllBut:
    """Every layer but some: those given, or a window of so many around the cell's layer.

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout("last", "subject", layers=kg.all_but(range(6, 21))).name
        'subject->last outside 6-20'
        >>> kg.knockout("last", "subject", window=kg.all_but(9)).window
        AllBut(layers=9)

    Layers of a model that does not have them, or none at all, are an `InputError`.

    Source: the inverse window, and edges cut outside their own layers, of Map the Flow (ICLR 2026).
    """
    given = as_int(layers)
    if isinstance(given, Iterable) and not isinstance(given, str):
        return AllBut(_numbers(given))
    if not isinstance(given, int):
        raise InputError(f"all_but({shown(layers)}): give layer numbers, or the width of a window")
    checked_window(given)
    return AllBut(given)


def _numbers(given: Iterable[object]) -> tuple[int, ...]:
    numbers = [as_int(one) for one in given]
    if not numbers or any(type(one) is not int for one in numbers):
        raise InputError(f"layers are {shown(numbers)}; give whole numbers, such as [0, 3]")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"layers are {shown(numbers)}; name each layer once")
    return tuple(n for n in numbers if isinstance(n, int))


def in_words(window: Window) -> int | str:
    """A set of layers as tables and methods paragraphs say it."""
    if isinstance(window, AllBut):
        return str(window)
    return window if isinstance(window, int | str) else f"layers {ranges(window, '-')}"


def of_name(window: Window) -> str:
    """What the name of an edit with layers of its own says of them."""
    if not has_own_layers(window):
        return ""
    if window == "all":
        return " at all layers"
    inside = window.layers if isinstance(window, AllBut) else window
    assert isinstance(inside, tuple)
    return f" {'outside' if isinstance(window, AllBut) else 'at'} {ranges(inside, '-')}"


def window_of(window: Window, layers: Layers, default: int) -> Window:
    """What one cell edits: a window around its layer, or the same `layers` in every cell."""
    if layers is None:
        return window
    if window != default:
        raise InputError(f"window={window!r} and layers={shown(layers)} both say it; give one")
    one = as_int(layers)
    if not isinstance(one, AllBut | str):
        return _numbers(one if isinstance(one, Iterable) else [one])
    found = checked_window(one)
    if not has_own_layers(found):
        raise InputError(f"layers={shown(layers)} depend on the cell's layer; give it as window=")
    return found


def has_own_layers(window: Window) -> bool:
    """Whether a set of layers is the same in every cell, so that there is only one."""
    return window == "all" or isinstance(getattr(window, "layers", window), tuple)


def layer_list(layers: str | int | Sequence[int], n_layers: int) -> tuple[int, ...]:
    """The layers of a sweep, in the user's order; negative ones count from the end."""
    if isinstance(layers, str):
        if layers != "all":
            raise unknown("layers", layers, ["all"])
        return tuple(range(n_layers))
    one = as_int(layers)
    given = list(one) if isinstance(one, Iterable) else [one]
    if not given:
        raise InputError("no layers given; pass layers='all' or a list of layer numbers")
    chosen = tuple(_layer(layer, n_layers) for layer in given)
    repeated = sorted({layer for layer in chosen if chosen.count(layer) > 1})
    if repeated:
        raise InputError(f"layer {repeated[0]} is given more than once; name each layer once")
    return chosen


def _layer(given: object, n_layers: int) -> int:
    layer = as_int(given)
    if isinstance(layer, int) and not isinstance(layer, bool) and -n_layers <= layer < n_layers:
        return layer % n_layers
    raise InputError(f"layer {given!r} is out of range: the model has layers 0 to {n_layers - 1}")


def checked_window(window: Any) -> Window:
    """A window as a user writes it; refused if it is no positive width, rule or set of layers."""
    window = as_int(window)
    if isinstance(window, list | tuple | range):
        return _numbers(window)
    if isinstance(window, AllBut):
        return window
    if isinstance(window, str):
        if window not in (*RULES, "all"):
            raise unknown("window", window, (*RULES, "all"))
    elif isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InputError(
            f"window is {window!r}; give a number of layers of at least 1, layers=[...], or one of "
            f"{', '.join(RULES)}"
        )
    return window


def layer_set(window: Window, layer: int, n_layers: int) -> tuple[int, ...]:
    """The layers edited by the cell at `layer`: a window around it, a rule, or the same in all.

    A window of w layers is centred and clipped, `range(max(0, l - w//2), min(L, l + ceil(w/2)))`,
    which is the window of Geva et al. 2023 (arXiv 2304.14767) for odd w and that of ROME's
    restorations (Meng et al. 2022, arXiv 2202.05262: l-5 to l+4) for w = 10.
    """
    every = tuple(range(n_layers))
    if isinstance(window, AllBut):
        inside = layer_set(window.layers, layer, n_layers)
        return tuple(one for one in every if one not in inside)
    if not isinstance(window, int | str):
        return tuple(sorted(layer_list(window, n_layers)))
    if isinstance(window, int):
        return every[max(0, layer - window // 2) : layer - (-window // 2)]
    below, above = every[:layer], every[layer + 1 :]
    return {
        "all": every,
        "only": (layer,),
        "all_but": below + above,
        "from": (layer, *above),
        "up_to": (*below, layer),
    }[window]
