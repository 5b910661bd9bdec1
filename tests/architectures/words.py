"""A tokenizer of whole words."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = (
    "the a of in is and to city tower river king queen red blue old new paris rome lima oslo cairo "
    "peru chad mali egypt italy spain norway language speak people located near far by with from at"
).split()


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
