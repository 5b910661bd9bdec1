"""Tiny random models of every family, a tokenizer of whole words, and two prompts."""

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `families` and `agree` are ours

from words import word_tokenizer

import knockgrid as kg


@pytest.fixture(scope="session")
def boot():
    """Boots a family once; keeps it for the other tests of the session."""
    from families import bridge

    tokenizer, made = word_tokenizer(), {}

    def get(family):
        if family.name not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[family.name] = bridge(family, tokenizer)
        return made[family.name]

    return get


@pytest.fixture(scope="session")
def prompts():
    """Two prompts of nine tokens, BOS included, with subjects in different places."""

    def make(text: str, subject: str, **more):
        return kg.Prompt(text, spans={"subject": subject}, **more)

    return [
        make(
            "the tower of rome is located in the",
            "tower of rome",
            id="rome",
            swap=make("the tower of lima is located in the", "tower of lima", id="lima"),
        ),
        make(
            "in the river of oslo people speak the",
            "river of oslo",
            id="oslo",
            swap=make("in the river of cairo people speak the", "river of cairo", id="cairo"),
        ),
    ]
