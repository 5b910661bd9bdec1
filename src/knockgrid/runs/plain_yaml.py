"""YAML as far as settings need it: mappings, lists, text, numbers, truth values; no more."""

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from knockgrid.errors import shown

TAG = "tag:yaml.org,2002:"
NUMBERS = {
    "int": r"[-+]?[0-9]+$",
    "float": r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
}


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without tags, aliases (a few stand for billions of items), double keys."""

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
                said = f"{what} {shown(given)} is not read"
                raise ComposerError(None, None, said, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue  # refused where it is constructed, if it cannot be a key
            if key.value in seen:
                said = f"the key {shown(key.value)} comes twice"
                raise ConstructorError(None, None, said, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _name, _pattern in NUMBERS.items():
    PlainLoader.add_implicit_resolver(f"{TAG}{_name}", re.compile(_pattern), list("-+.0123456789"))


def plain_yaml(text: str) -> Any:
    """The value of a YAML text; a `YAMLError` for what the loader does not take."""
    try:
        return PlainLoader(text).get_single_data()
    except ValueError as error:  # Python converts no number of more than 4,300 digits
        raise yaml.YAMLError(str(error)) from None
