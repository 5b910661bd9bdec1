"""YAML as far as settings need it: mappings, lists, text, numbers, truth values; no more."""

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from knockgrid.errors import shown

TAG = "tag:yaml.org,2002:"
NUMBERS = {
    "int": (re.compile(r"[-+]?[0-9]+$"), "-+0123456789"),
    "float": (
        re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
}


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without tags, without aliases, and without keys that come twice.

    A few aliases of aliases stand for billions of items, and what a tag constructs is nothing that
    a setting can be.
    """

    # not dates, not `<<`, and not 1:30, which YAML 1.1 reads as 90
    yaml_implicit_resolvers = {
        letter: [pair for pair in pairs if pair[0] in (f"{TAG}bool", f"{TAG}null")]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        for what in ("anchor", "tag"):
            given = getattr(event, what, None)
            if given is not None:
                raise ComposerError(
                    None, None, f"{what} {shown(given)} is not read", event.start_mark
                )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue  # refused where it is constructed, if it cannot be a key
            if key.value in seen:
                raise ConstructorError(
                    None, None, f"the key {shown(key.value)} comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _name, (_pattern, _letters) in NUMBERS.items():
    PlainLoader.add_implicit_resolver(f"{TAG}{_name}", _pattern, list(_letters))


def plain_yaml(text: str) -> Any:
    r"""The value of a YAML text.

    Example:
        >>> plain_yaml("model: demo\nlayers: [0, 15]\nnoise: 3.5")
        {'model': 'demo', 'layers': [0, 15], 'noise': 3.5}

    Raises:
        yaml.YAMLError: text that is not YAML, or holds a tag, an anchor, an alias, a key that comes
            twice or a number of too many digits.
    """
    try:
        return PlainLoader(text).get_single_data()
    except ValueError as error:  # Python converts no number of more than 4,300 digits
        raise yaml.YAMLError(str(error)) from None
