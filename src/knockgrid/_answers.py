"""Answers: their tokens, and which prompts a model answers right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._model import check_ready, load
from knockgrid._prepared import batches, default_bos, ids_of, prepare
from knockgrid._prompt import Prompt
from knockgrid._run import continue_greedily


def answer_tokens(tokenizer: Any, prompt: Prompt) -> list[tuple[int, ...]]:
    """The token ids of every alias, as it would follow the prompt: after one space."""
    space = "" if prompt.text[-1].isspace() else " "
    encoded = [
        tokenizer(space + alias, add_special_tokens=False)["input_ids"] for alias in prompt.answers
    ]
    return [tuple(ids) for ids in encoded if ids]


def first_tokens(tokenizer: Any, prompt: Prompt, clean: Tensor) -> tuple[int, ...]:
    """The first tokens of all aliases, the one that the clean run finds likeliest in front.

    `clean` holds the clean logits `[d_vocab]` after the prompt. Empty without answers.
    """
    firsts = dict.fromkeys(ids[0] for ids in answer_tokens(tokenizer, prompt))
    return tuple(sorted(firsts, key=lambda token: float(clean[token]), reverse=True))


@dataclass(frozen=True)
class Known(Sequence[Prompt]):
    """The prompts a model answers right, and those it does not; a sequence of the former."""

    prompts: tuple[Prompt, ...]
    dropped: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prompt, ...]: ...
    def __getitem__(self, index: int | slice) -> Prompt | tuple[Prompt, ...]:
        return self.prompts[index]

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __repr__(self) -> str:
        total = len(self.prompts) + len(self.dropped)
        return f"Known({len(self.prompts)} of {total} prompts, {len(self.dropped)} dropped)"


def is_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether a continuation begins with one of the answers, as whole words, in any case.

    Example:
        >>> is_answer(" Paris, the capital", ["Paris"]), is_answer(" Parisian", ["Paris"])
        (True, False)
    """
    said = text.strip().casefold()
    ends = [said[len(a) :] for a in map(str.casefold, answers) if said.startswith(a)]
    return any(not rest[:1].isalnum() for rest in ends)


def known(
    model: str | TransformerBridge,
    prompts: Sequence[Prompt],
    *,
    prepend_bos: bool | None = None,
) -> Known:
    """Keep the prompts that the model answers right when it decodes greedily.

    Example:
        >>> import knockgrid as kg
        >>> rome = kg.Prompt("The capital of Italy is", answers=["Rome"])
        >>> lie = kg.Prompt("The capital of France is", answers=["Berlin"])
        >>> kg.known("demo", [rome, lie])
        Known(1 of 2 prompts, 1 dropped)

    A prompt is known when the greedy continuation begins with one of its answers as whole words.
    Filtering by correctness selects; the dropped prompts are in `.dropped`, so that they can be
    run and shown as well.

    Raises:
        InputError: an empty prompt set, or a prompt that does not fit the model.
    """
    model = load(model)
    check_ready(model)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, 1)
    right: set[str] = set()
    for batch in batches(ready):
        aliases = [ids for one in batch for ids in answer_tokens(model.tokenizer, one.prompt)]
        # One token more than the longest alias, to see that the word has ended.
        n = max((len(ids) for ids in aliases), default=0) + 1
        ids = continue_greedily(model, ids_of(model, batch), n)[:, len(batch[0].tokens) :]
        for one, row in zip(batch, ids.tolist(), strict=True):
            if is_answer(model.tokenizer.decode(row), one.prompt.answers):
                right.add(str(one.prompt.id))
    keep = [one.prompt for one in ready]
    return Known(
        tuple(p for p in keep if p.id in right), tuple(p for p in keep if p.id not in right)
    )
