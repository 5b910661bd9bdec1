"""Answers: their tokens, and which prompts a model answers right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._matching import Judge, judged
from knockgrid._model import check_ready, load
from knockgrid._positions import encode
from knockgrid._prepared import Prepared, batches, default_bos, ids_of, prepare
from knockgrid._prompt import Prompt
from knockgrid._run import continue_greedily


def answer_tokens(tokenizer: Any, prompt: Prompt) -> list[tuple[int, ...]]:
    """The token ids of every alias, as it would follow the prompt: after one space."""
    space = "" if prompt.text[-1].isspace() else " "
    encoded = [encode(tokenizer, space + alias)["input_ids"] for alias in prompt.answers]
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


def answer_length(tokenizer: Any, prompts: Sequence[Prompt]) -> int:
    """Tokens of output that show whether a prompt was answered right.

    The longest alias, one token more to see that its word has ended, and four for what may stand
    before it: an article, a quotation mark, markdown.
    """
    lengths = (len(ids) for prompt in prompts for ids in answer_tokens(tokenizer, prompt))
    return max(lengths, default=0) + 5


def decode_output(tokenizer: Any, ids: Sequence[int]) -> str:
    """Generated token ids as text, up to the end-of-text token if there is one."""
    end = getattr(tokenizer, "eos_token_id", None)
    ids = list(ids)
    return str(tokenizer.decode(ids[: ids.index(end)] if end in ids else ids))


def outputs(
    model: TransformerBridge, ready: Sequence[Prepared], n_tokens: int | None = None
) -> dict[str, str]:
    """The greedy continuation of every prompt as text, by prompt id.

    It is as long as the longest answer of the set needs, so that no text depends on its batch.
    """
    n = n_tokens or answer_length(model.tokenizer, [one.prompt for one in ready])
    found: dict[str, str] = {}
    for batch in batches(ready):
        ids = continue_greedily(model, ids_of(model, batch), n)[:, len(batch[0].tokens) :]
        for one, row in zip(batch, ids.tolist(), strict=True):
            found[str(one.prompt.id)] = decode_output(model.tokenizer, row)
    return found


def known(
    model: str | TransformerBridge,
    prompts: Sequence[Prompt],
    *,
    judge: Judge | None = None,
    n_tokens: int | None = None,
    prepend_bos: bool | None = None,
) -> Known:
    """Keep the prompts that the model answers right when it decodes greedily.

    Example:
        >>> import knockgrid as kg
        >>> rome = kg.Prompt("The capital of Italy is", answers=["Rome"])
        >>> lie = kg.Prompt("The capital of France is", answers=["Berlin"])
        >>> kg.known("demo", [rome, lie])
        Known(1 of 2 prompts, 1 dropped)

    A prompt is known when the greedy continuation begins with one of its answers as whole words;
    case, articles, quotes and accents do not count. A `judge` of your own, `(prompt, text) ->
    bool`, takes the place of that rule, and reads `n_tokens` of output (by default as many as the
    longest answer needs, and a few more). Filtering by correctness selects; the dropped prompts
    are in `.dropped`, so that they can be run and shown as well.

    Raises:
        InputError: an empty prompt set, a prompt that does not fit the model, or a judge that
            gives neither True nor False.
    """
    model = load(model)
    check_ready(model)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, 1)
    said = outputs(model, ready, n_tokens)
    right = {str(p.id) for p in (one.prompt for one in ready) if judged(p, said[str(p.id)], judge)}
    keep = [one.prompt for one in ready]
    return Known(
        tuple(p for p in keep if p.id in right), tuple(p for p in keep if p.id not in right)
    )
