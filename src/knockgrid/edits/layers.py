"""Layer lists as a user gives them, and the set of layers that one cell edits."""

from collections.abc import Iterable, Sequence

from knockgrid.errors import InputError, as_int, unknown

RULES = ("only", "all_but", "from", "up_to")
Window = int | str


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


def check_window(window: Window) -> None:
    """Refuse a window that is neither a positive width nor a rule."""
    if isinstance(window, str):
        if window not in RULES:
            raise unknown("window", window, RULES)
    elif isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InputError(
            f"window is {window!r}; give a number of layers of at least 1, or one of "
            f"{', '.join(RULES)}"
        )


def layer_set(window: Window, layer: int, n_layers: int) -> tuple[int, ...]:
    """The layers edited by the cell at `layer`: a window around it, or a rule.

    A window of w layers is centred and clipped, `range(max(0, l - w//2), min(L, l + ceil(w/2)))`,
    which is the window of Geva et al. 2023 (arXiv 2304.14767) for odd w and that of ROME's
    restorations (Meng et al. 2022, arXiv 2202.05262: l-5 to l+4) for w = 10.
    """
    every = tuple(range(n_layers))
    if isinstance(window, int):
        return every[max(0, layer - window // 2) : layer - (-window // 2)]
    below, above = every[:layer], every[layer + 1 :]
    return {
        "only": (layer,),
        "all_but": below + above,
        "from": (layer, *above),
        "up_to": (*below, layer),
    }[window]
