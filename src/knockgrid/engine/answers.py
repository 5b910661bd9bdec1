"""Answers: their tokens, and which prompts a model answers right."""

import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError, shown
from knockgrid.host.bridge import check_ready, load
from knockgrid.passes.prepared import Prepared, batches, default_bos, ids_of, prepare
from knockgrid.passes.run import Run, continue_greedily
from knockgrid.prompts.matching import Judge, judged
from knockgrid.prompts.positions import tokenize
from knockgrid.prompts.prompt import Prompt

UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese, whose words stand without spaces."""
Placed = Prepared | Run
"""What holds a prompt and its tokens."""


class Answer(NamedTuple):
    """One alias behind a prompt: what separates them, and the tokens that it adds to the text."""

    separator: str
    ids: tuple[int, ...]


def separators(text: str, alias: str) -> tuple[str, ...]:
    """What may stand between a prompt and its answer; of two, the model decides."""
    last = text[-1]
    if last.isspace():
        return ("",)
    if UNSPACED.match(last) or _opens(text):
        return "", " "
    kind = unicodedata.category(last)
    spaced = kind[0] in "LNM" or kind in ("Pe", "Pf") or last in ".,;:!?%\"'’"
    return (" ",) if spaced and not UNSPACED.match(alias) else (" ", "")


def _opens(text: str) -> bool:
    """Whether a text ends with a bracket or quotation mark that is open."""
    last = text[-1]
    if last == '"':
        return text.count('"') % 2 == 1
    if last == "'":
        return len(text) == 1 or not text[-2].isalnum()
    return unicodedata.category(last) in ("Ps", "Pi")


def answer_tokens(tokenizer: Any, one: Placed) -> list[tuple[Answer, ...]]:
    """For every alias, the ways in which it may follow the prompt."""
    text, own, found = one.prompt.text, one.tokens.ids, []
    for alias in one.prompt.answers:
        ways: list[Answer] = []
        for separator in separators(text, alias):
            ids = tokenize(text + separator + alias, tokenizer, bool(one.tokens.bos)).ids
            if ids[: len(own)] == own and len(ids) > len(own):
                ways.append(Answer(separator, ids[len(own) :]))
            elif not ways:
                raise other_tokens(tokenizer, one, f"answer {shown(alias)}", ids)
        found.append(tuple(ways))
    return found


def check_answers(tokenizer: Any, placed: Sequence[Placed]) -> None:
    """Refuse answers whose tokens cannot be told from the prompt's; say whose say nothing."""
    blank = [
        f"{shown(one.prompt.text)} and {shown(one.prompt.answers[0])}"
        for one in placed
        for ways in answer_tokens(tokenizer, one)[:1]
        if not tokenizer.decode([ways[0].ids[0]]).strip()
    ]
    if blank:
        warnings.warn(
            f"{len(blank)} of {len(placed)} prompts have an answer whose first token is white space"
            f" alone (first: {blank[0]}), as others have, so logp_answer and rank_answer do not "
            "tell them apart",
            stacklevel=4,
        )


def other_tokens(tokenizer: Any, one: Placed, behind: str, ids: Sequence[int]) -> InputError:
    """The error for a prompt that is cut in the middle of a token which its answer would finish.

    `behind` names the answer or the foil.
    """
    text, own = one.prompt.text, one.tokens.ids
    at = next((i for i, (a, b) in enumerate(zip(own, ids, strict=False)) if a != b), len(ids) - 1)
    alone, before = (tokenizer.convert_ids_to_tokens(list(part[at:])) for part in (own, ids))
    advice = "take the white space off its end" if text[-1].isspace() else "end it elsewhere"
    return InputError(
        f"prompt {shown(text)} has other tokens before its {behind} than alone "
        f"({shown(before[:3])} where it ends with {shown(alone[:3])}), so none is the "
        f"{behind.split()[0]}'s first; {advice}"
    )


def first_answers(tokenizer: Any, one: Placed, clean: Tensor) -> list[Answer]:
    """Every alias in the way that is likelier by its clean logits `[d_vocab]`, the best first."""

    def likely(answer: Answer) -> float:
        return float(clean[answer.ids[0]])

    found = [max(ways, key=likely) for ways in answer_tokens(tokenizer, one)]
    return sorted(found, key=likely, reverse=True)


@dataclass(frozen=True)
class Known(Sequence[Prompt]):
    """The prompts a model answers right, and those it does not; a sequence of the former.

    `said` holds, by id, what the model said to each prompt that could be judged.
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
        """How many prompts were dropped, and why, with an example; empty where none was."""
        wrong = [p for p in self.dropped if p.answers or str(p.id) in self.said]
        without = len(self.dropped) - len(wrong)
        parts = [f"{len(wrong)} answered wrong{self._example(wrong[0])}"] if wrong else []
        parts += [f"{without} without answers"] if without else []
        total = len(self.prompts) + len(self.dropped)
        return f"{len(self.dropped)} of {total} prompts dropped: {'; '.join(parts)}" * bool(parts)

    def _example(self, prompt: Prompt) -> str:
        said = self.said.get(str(prompt.id))
        if said is None:
            return ""
        right = f" instead of {shown(prompt.answers[0], 30)}" if prompt.answers else ""
        end = prompt.text if len(prompt.text) <= 40 else f"…{prompt.text[-40:]}"
        said = shown(said if len(said) <= 25 else f"{said[:25]}…")
        return f", such as {shown(end)} with {said}{right}"

    def __repr__(self) -> str:
        total = len(self.prompts) + len(self.dropped)
        _, colon, why = self.why.partition(": ")
        return f"Known({len(self)} of {total} prompts, {len(self.dropped)} dropped{colon}{why})"


def answer_length(tokenizer: Any, placed: Sequence[Placed]) -> int:
    """Tokens of output that show whether a prompt was answered right.

    The longest alias, one more to see that its word has ended, and four for an article, a quotation
    mark or markdown before it.
    """
    every = (way for one in placed for ways in answer_tokens(tokenizer, one) for way in ways)
    return max((len(way.ids) for way in every), default=0) + 5


def decode_output(tokenizer: Any, ids: Sequence[int]) -> str:
    """Generated token ids as text, up to the end-of-text token if there is one."""
    end = getattr(tokenizer, "eos_token_id", None)
    ids = list(ids)
    return str(tokenizer.decode(ids[: ids.index(end)] if end in ids else ids))


def outputs(
    model: TransformerBridge, ready: Sequence[Prepared], n_tokens: int | None = None
) -> dict[str, str]:
    """The greedy continuation of every prompt, by id, as long as the longest answer of the set."""
    return {
        str(one.prompt.id): decode_output(model.tokenizer, ids)
        for one, ids in _continued(model, ready, n_tokens)
    }


def _continued(
    model: TransformerBridge, ready: Sequence[Prepared], n_tokens: int | None
) -> Iterator[tuple[Prepared, list[int]]]:
    n = n_tokens or answer_length(model.tokenizer, ready)
    for batch in batches(ready):
        ids = continue_greedily(model, ids_of(model, batch), n)[:, len(batch[0].tokens) :]
        yield from zip(batch, ids.tolist(), strict=True)


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
    longest answer needs, and a few more). Filtering by correctness selects: `.dropped` holds the
    other prompts, and `.why` counts them.

    Raises:
        InputError: an empty prompt set, one without any answers or judge, a prompt that does not
            fit the model, or a judge that gives neither True nor False.
    """
    model = load(model)
    prompts = [prompts] if isinstance(prompts, Prompt) else list(prompts)
    if judge is None:
        check_answered(prompts)
    found, odd = sorted_out(model, prompts, judge, n_tokens, prepend_bos)
    warn_of(odd, len(found))
    return found


def check_answered(prompts: Sequence[Prompt]) -> None:
    """Refuse to look for known prompts where none has an answer."""
    if prompts and not any(getattr(one, "answers", True) for one in prompts):
        raise InputError(
            f"none of the {len(prompts)} prompts has an answer, so none is known; give them, "
            "or say which column holds them: columns={name: 'answers'}, --column NAME=answers"
        )


def sorted_out(
    model: TransformerBridge,
    prompts: Sequence[Prompt],
    judge: Judge | None = None,
    n_tokens: int | None = None,
    prepend_bos: bool | None = None,
) -> tuple[Known, list[str]]:
    """What `known` gives, and of known prompts whose answer is not what the model says first."""
    check_ready(model)
    ready = prepare(model, prompts, default_bos(model, prepend_bos), 1)
    right, odd, outputs = set[str](), list[str](), dict[str, str]()
    for one, ids in _continued(model, ready, n_tokens):
        prompt, said = one.prompt, decode_output(model.tokenizer, ids)
        if judge is not None or prompt.answers:
            outputs[str(prompt.id)] = said
        if not judged(prompt, said, judge):
            continue
        right.add(str(prompt.id))
        ways = [way for ways in answer_tokens(model.tokenizer, one) for way in ways]
        if ways and ids[0] not in {way.ids[0] for way in ways}:
            first = model.tokenizer.decode([ways[0].ids[0]])
            odd.append(
                f"{shown(prompt.text)} goes on {shown(said)}, its answer with {shown(first)}"
            )
    every = [one.prompt for one in ready]
    known = tuple(prompt for prompt in every if prompt.id in right)
    return Known(known, tuple(p for p in every if p.id not in right), outputs), odd


def warn_of(odd: Sequence[str], n_known: int) -> None:
    """Say that known prompts have an answer whose clean rank is not 0, if there are any."""
    if odd:
        warnings.warn(
            f"{len(odd)} of {n_known} prompts count as known, but the clean rank of their answer "
            f"is not 0, so logp_answer and rank_answer follow another token than the model's "
            f"(first: {odd[0]}); look at the spelling of their answers",
            stacklevel=3,
        )
