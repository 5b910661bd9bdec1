"""Answers: their tokens, and which prompts a model answers right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._errors import InputError, shown
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
    """The prompts a model answers right, and those it does not; a sequence of the former.

    `said` holds what the model said to each prompt that could be judged, by its id; `why` counts
    what was dropped, with an example.
    """

    prompts: tuple[Prompt, ...]
    dropped: tuple[Prompt, ...]
    said: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

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

    @property
    def why(self) -> str:
        """How many prompts were dropped, and why; empty where none was."""
        wrong = [p for p in self.dropped if p.answers or str(p.id) in self.said]
        without = len(self.dropped) - len(wrong)
        parts = [f"{len(wrong)} answered wrong{self._example(wrong[0])}"] if wrong else []
        parts += [f"{without} without answers"] if without else []
        total = len(self.prompts) + len(self.dropped)
        return f"{len(self.dropped)} of {total} prompts dropped: {'; '.join(parts)}" * bool(parts)

    def _example(self, prompt: Prompt) -> str:
        if str(prompt.id) not in self.said:
            return ""
        right = f" instead of {shown(prompt.answers[0], 30)}" if prompt.answers else ""
        end = prompt.text if len(prompt.text) <= 40 else f"…{prompt.text[-40:]}"
        said = self.said[str(prompt.id)]
        said = shown(said if len(said) <= 25 else f"{said[:25]}…")
        return f", such as {shown(end)} with {said}{right}"

    def __repr__(self) -> str:
        total = len(self.prompts) + len(self.dropped)
        why = self.why.partition(": ")[2]
        why = f": {why}" if why else ""
        return f"Known({len(self.prompts)} of {total} prompts, {len(self.dropped)} dropped{why})"


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
        >>> found = kg.known("demo", [rome, lie])
        >>> print(found.why[:49])
        1 of 2 prompts dropped: 1 answered wrong, such as

    A prompt is known when the greedy continuation begins with one of its answers as whole words;
    case, articles, quotes and accents do not count. A `judge` of your own, `(prompt, text) ->
    bool`, takes the place of that rule, and reads `n_tokens` of output (by default as many as the
    longest answer needs, and a few more). Filtering by correctness selects; the dropped prompts
    are in `.dropped`, so that they can be run and shown as well, and `.why` counts them.

    Raises:
        InputError: an empty prompt set, one without any answers or judge, a prompt that does not
            fit the model, or a judge that gives neither True nor False.
    """
    model = load(model)
    check_ready(model)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, 1)
    if judge is None:
        with_answers([one.prompt for one in ready])
    said = outputs(model, ready, n_tokens)
    right = {str(p.id) for p in (one.prompt for one in ready) if judged(p, said[str(p.id)], judge)}
    keep = [one.prompt for one in ready]
    said = {str(p.id): said[str(p.id)] for p in keep if judge is not None or p.answers}
    return Known(
        tuple(p for p in keep if p.id in right), tuple(p for p in keep if p.id not in right), said
    )


def with_answers(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that have answers.

    Raises:
        InputError: none of them has, so that none could be known.
    """
    found = [prompt for prompt in prompts if prompt.answers]
    if prompts and not found:
        raise InputError(
            f"none of the {len(prompts)} prompts has answers, so it cannot be said which are "
            "known; give each its answers=, or leave the filter out"
        )
    return found
