"""Answer positions: places after the prompt, by their role in the model's own answer.

The columns of Orgad et al. (arXiv 2410.02707): with q tokens in the prompt, `last_q` is position
q - 1, `first_answer` q, `second_answer` q + 1; `"-1"`, `"-2"`, ... (as text) count from the end
of prompt and output; `exact_answer_*` are around the shortest span of tokens that holds the answer
(`knockgrid.engine.exact_answers` says which).

In the text that a free run writes, `last+k` is the position k after the prompt's last one: the
state there writes token k. It is step k of generation in Akarlar 2026 (arXiv 2604.15400).
"""

import re
from collections.abc import Sequence
from typing import Any

from knockgrid.errors import InputError
from knockgrid.passes.run import Exact, Run
from knockgrid.prompts.positions import At, lacks, resolve
from knockgrid.prompts.prompt import Prompt

Mention = tuple[int, int]
"""The characters of an output that are its answer, half-open."""
EXACT = ("before_first", "first", "last", "after_last")
NAMES = ("last_q", "first_answer", "second_answer", *(f"exact_answer_{part}" for part in EXACT))
FROM_END = re.compile(r"-[1-9]\d*")
STEP = re.compile(r"last\+(0|[1-9]\d*)")


def is_answer_position(at: At) -> bool:
    """Whether a name stands for a place in the answer; -1 as a number does not."""
    if not isinstance(at, str):
        return False
    return at in NAMES or any(form.fullmatch(at) for form in (FROM_END, STEP))


def steps_in(at: At | None) -> list[int]:
    """The steps of generation that a place names: k for `last+k`."""
    if isinstance(at, str):
        found = STEP.fullmatch(at)
        return [] if found is None else [int(found[1])]
    return [] if at is None or isinstance(at, int) else [k for one in at for k in steps_in(one)]


def after_prompt(at: At) -> bool:
    """Whether a place lies, or may lie, in what follows the prompt."""
    return is_answer_position(at) or bool(steps_in(at))


def steps(n_prompt: int, n: int) -> dict[str, int]:
    """The positions of the first n steps of generation, by name."""
    return {f"last+{k}": n_prompt - 1 + k for k in range(n)}


def is_exact(at: At | None) -> bool:
    """Whether a name stands for a place at the exact answer."""
    return isinstance(at, str) and at.startswith("exact_answer_")


def shortest_span(tokenizer: Any, output: Sequence[int], answers: Sequence[str]) -> range | None:
    """The fewest output tokens that hold the first mention of an answer, as whole words, if any."""
    at = first_mention(tokenizer.decode(output), answers)
    return None if at is None else holding(tokenizer, output, *at)


def first_mention(said: str, answers: Sequence[str]) -> Mention | None:
    """The first mention of an answer as whole words, in any case; of two, the longer one."""
    patterns = [rf"(?<!\w){re.escape(answer)}(?!\w)" for answer in answers if answer]
    mentions = [re.search(pattern, said, re.IGNORECASE) for pattern in patterns]
    held = [mention.span() for mention in mentions if mention]
    return min(held, key=lambda span: (span[0], -span[1]), default=None)


def holding(tokenizer: Any, output: Sequence[int], start: int, stop: int) -> range:
    """The fewest output tokens that hold some characters of their text."""
    said = tokenizer.decode(output)
    before = [tokenizer.decode(output[:i]) for i in range(len(output) + 1)]
    # a part of a character decodes to a placeholder until its last byte is there
    first = max(i for i in range(len(output)) if said[:start].startswith(before[i]))
    last = next(i for i, text in enumerate(before) if text.startswith(said[:stop]))
    return range(first, last)


def answer_positions(
    tokenizer: Any,
    prompt: Prompt,
    output: Sequence[int],
    n_prompt: int,
    exact: Exact | None = None,
) -> dict[str, int]:
    """Every answer position that a prompt and its answer, the tokens `output`, have, by name.

    The exact answer is the given one, unless another was found.
    """
    found = {"last_q": n_prompt - 1, "first_answer": n_prompt, "second_answer": n_prompt + 1}
    total = n_prompt + len(output)
    span = exact.tokens if exact else shortest_span(tokenizer, output, prompt.answers)
    if span is not None:
        first, last = n_prompt + span[0], n_prompt + span[-1]
        places = (first - 1, first, last, min(total - 1, last + 1))
        found.update({f"exact_answer_{part}": at for part, at in zip(EXACT, places, strict=True)})
    found.update({f"-{k}": total - k for k in range(1, total + 1)})
    return {name: at for name, at in found.items() if at < total}


def positions_in(run: Run, at: At) -> tuple[int, ...]:
    """Positions of a place in a run, its continuation included."""
    if not isinstance(at, str | int):
        return tuple(sorted({p for one in at for p in positions_in(run, one)}))
    if is_answer_position(at):
        if at not in run.named:
            raise InputError(f"prompt {run.prompt.id!r}: {absent(run, at)}")
        return (run.named[str(at)],)
    return resolve(run.prompt, run.tokens, at)


def absent(run: Run, at: At) -> str | None:
    """Why a run has no such place, or None where it has."""
    if not isinstance(at, str | int):
        return next((reason for one in at if (reason := absent(run, one))), None)
    if not is_answer_position(at):
        return lacks(run.prompt, run.tokens, at)
    if at in run.named:
        return None
    return run.exact.why if is_exact(at) else f"the output has no {at!r}"
