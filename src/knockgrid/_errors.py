"""What the tool says when it is given something it cannot work with."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that knockgrid refuses, in one sentence: what was given, what is allowed, what to do.

    It is a `ValueError`, so existing handlers keep working; the command line turns it into one
    line on standard error and exit code 2.

    Example:
        >>> raise InputError("layer 31 is out of range: the model has layers 0 to 29")
        Traceback (most recent call last):
        ...
        knockgrid._errors.InputError: layer 31 is out of range: the model has layers 0 to 29
    """


def unknown(what: str, given: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest spelling that does.

    Example:
        >>> print(unknown("metric", "jss", ["js", "kl"]))
        unknown metric 'jss'; did you mean 'js'? Allowed: js, kl
    """
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"unknown {what} {given!r}{hint} Allowed: {', '.join(names)}")
