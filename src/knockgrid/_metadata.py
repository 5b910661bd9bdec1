"""Values of a table's metadata that pandas need not copy.

pandas makes a deep copy of `DataFrame.attrs` at every step, a filter or an indexed row included; a
table's metadata hold an entry per prompt, and copying them took two thirds of the time of intervals
and tests. Lists and dicts of the metadata are therefore handed on as they are: they are written
once, when a table is built or read, and never changed.
"""

from collections.abc import Mapping
from typing import Any


class SharedList(list):
    """A list that a deep copy hands on.

    Example:
        >>> from copy import deepcopy
        >>> entries = SharedList([{"id": "rome"}])
        >>> deepcopy({"prompts": entries})["prompts"] is entries, entries == [{"id": "rome"}]
        (True, True)
    """

    def __deepcopy__(self, memo: dict) -> "SharedList":
        return self


class SharedDict(dict):
    """A dict that a deep copy hands on.

    Example:
        >>> from copy import deepcopy
        >>> receipt = SharedDict(executor="staircase")
        >>> deepcopy([receipt])[0] is receipt, receipt == {"executor": "staircase"}
        (True, True)
    """

    def __deepcopy__(self, memo: dict) -> "SharedDict":
        return self


def shared(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata whose lists and dicts are handed on when pandas copies the table.

    Example:
        >>> made = shared({"unit": "nats", "prompts": [{"id": "rome"}]})
        >>> type(made["prompts"]).__name__, made == {"unit": "nats", "prompts": [{"id": "rome"}]}
        ('SharedList', True)
    """
    kinds = {list: SharedList, dict: SharedDict}
    return {key: kinds.get(type(value), lambda v: v)(value) for key, value in metadata.items()}
