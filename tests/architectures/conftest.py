"""Tiny random models of every family, a tokenizer of whole words, and two prompts."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `families` and `agree` are ours

WORDS = [
    "the",
    "a",
    "of",
    "in",
    "is",
    "and",
    "to",
    "city",
    "tower",
    "river",
    "king",
    "queen",
    "red",
    "blue",
    "old",
    "new",
    "paris",
    "rome",
    "lima",
    "oslo",
    "cairo",
    "peru",
    "chad",
    "mali",
    "egypt",
    "italy",
    "spain",
    "norway",
    "language",
    "speak",
    "people",
    "located",
    "near",
    "far",
    "by",
    "with",
    "from",
    "at",
]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word, so that prompts have the lengths they seem to have."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        name_or_path="words",  # TransformerLens asks for both
        add_bos_token=True,
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small matrices: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    import knockgrid as kg

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
