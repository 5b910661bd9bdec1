"""Exact answers: the words of an output that are its answer, given or said in its place.

A wrong output rarely mentions the given answer, so other rules look for what it says instead, one
after the other: a mention of any answer of the relation, what the model itself names when it is
asked, or a function of the user's own. Orgad et al. (arXiv 2410.02707) ask a second model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.data import digest_of
from knockgrid.engine.answers import outputs
from knockgrid.errors import InputError, shown, unknown
from knockgrid.passes.answer_positions import Mention, first_mention, holding
from knockgrid.passes.prepared import prepare
from knockgrid.passes.run import Exact
from knockgrid.prompts.prompt import Prompt, trimmed
from knockgrid.spec import EXACT_ANSWERS, name_of

Rule = str | Callable[..., Any]
"""The name of a rule, or a function from a prompt and its output to a part of that, or None."""
Output = tuple[Prompt, Sequence[int], str]
"""A prompt, the tokens of its output, and their text."""
EXAMPLES = """\
Output: the Atlantic. It is the
Exact answer: Atlantic

Output: Charles Dickens, who was
Exact answer: Charles Dickens

Output: cold.
Exact answer: cold

"""
"""What the model is shown first. Without the questions: given these, small models answer again."""
MARKS = " \"'.,;:!?"


@dataclass(frozen=True, eq=False)
class ExactAnswers:
    """The rules by which exact answers are found, the first that finds one first.

    `answers` holds those of every relation of the prompt set.
    """

    rules: tuple[Rule, ...] = ("given",)
    answers: Mapping[str | None, Sequence[str]] | None = None

    def found(
        self, model: TransformerBridge, some: Sequence[Output], prepend_bos: bool
    ) -> list[Exact]:
        """The exact answer of every output, or why it has none."""
        every: dict[int, Exact] = {}
        for rule in self.rules:
            left = [i for i in range(len(some)) if i not in every and trimmed(some[i][2])]
            places = self._by(rule, model, [some[i] for i in left], prepend_bos)
            for i, at in zip(left, places, strict=True):
                if at is not None:
                    every[i] = self._exact(rule, model.tokenizer, some[i], at)
        why = f"no exact answer is in the output, by {' or '.join(map(name_of, self.rules))}"
        if self.rules == ("given",):
            why = Exact().why
        return [every.get(i, Exact(why=why)) for i in range(len(some))]

    def _by(
        self, rule: Rule, model: TransformerBridge, some: Sequence[Output], prepend_bos: bool
    ) -> Iterable[Mention | None]:
        """Where one rule finds the exact answer of every output."""
        if rule == "model":
            replies = asked(model, some, prepend_bos)
            return [first_mention(s, [r]) for (_, _, s), r in zip(some, replies, strict=True)]
        if callable(rule):
            return [by_function(rule, prompt, said) for prompt, _, said in some]
        pool = (self.answers or {}) if rule == "relation" else {}
        return [first_mention(s, (*p.answers, *pool.get(p.relation, ()))) for p, _, s in some]

    def _exact(self, rule: Rule, tokenizer: Any, one: Output, at: Mention) -> Exact:
        prompt, ids, said = one
        own = rule == "relation" and first_mention(said, prompt.answers) == at
        tokens = holding(tokenizer, ids, *at)
        return Exact(tokens, said[slice(*at)], "given" if own else name_of(rule))


def exact_answers(given: Any, prompts: Sequence[Prompt]) -> ExactAnswers:
    """The rules that an option names, for a prompt set."""
    answers: dict[str | None, dict[str, None]] = {}
    for prompt in prompts:
        if prompt.relation is not None:
            answers.setdefault(prompt.relation, {}).update(dict.fromkeys(prompt.answers))
    return ExactAnswers(rules_of(given), {name: list(some) for name, some in answers.items()})


def rules_of(given: Any) -> tuple[Rule, ...]:
    """The rules that were given, one or several; refused where there is no such rule."""
    one = isinstance(given, str) or not isinstance(given, Iterable)
    rules: tuple[Any, ...] = (given,) if one else tuple(given)
    for rule in rules:
        if not callable(rule) and rule not in EXACT_ANSWERS:
            names = (*EXACT_ANSWERS, "a function (prompt, output) -> text or None")
            raise unknown("exact_answer", rule, names)
        if callable(rule) and name_of(rule) in EXACT_ANSWERS:
            raise InputError(f"an exact_answer function is called {name_of(rule)!r}; rename it")
    names = [name_of(rule) for rule in rules]
    if not names or len(set(names)) < len(names):
        raise InputError(f"exact_answer is {shown(names)}; give at least one rule, and each once")
    return rules


def rules_from_data(data: Any, known: Sequence[Any] = ()) -> tuple[Rule, ...]:
    """The rules that `rules_as_data` wrote; functions are found among those that are known."""
    functions = {digest_of(one): one for one in known if callable(one)}
    rules: list[Rule] = []
    for one in [data] if isinstance(data, str | Mapping) else data:
        if isinstance(one, Mapping) and one.get("digest") not in functions:
            name = one.get("name")
            raise InputError(
                f"exact answers were found by {name!r}, a function of your own; give it in "
                f"known=[{name}], as it was"
            )
        rules.append(functions[one["digest"]] if isinstance(one, Mapping) else one)
    return tuple(rules)


def asked(model: TransformerBridge, some: Sequence[Output], prepend_bos: bool) -> list[str]:
    """What the model names as the exact answer of every output, greedily, after a few examples.

    It is shown the first line of an output, and cannot name more than that.
    """
    if not some:
        return []
    lines = [trimmed(said).splitlines()[0].replace("\0", "") for _, _, said in some]
    questions = [
        Prompt(f"{EXAMPLES}Output: {line}\nExact answer:", id=prompt.id)
        for (prompt, _, _), line in zip(some, lines, strict=True)
    ]
    n = max(len(ids) for _, ids, _ in some) + 1
    try:
        ready = prepare(model, questions, prepend_bos, n + 1)
    except InputError as error:
        raise InputError(f"exact_answer='model' asks with examples before it: {error}") from None
    replies = outputs(model, ready, n)
    every = (trimmed(replies[str(one.id)]) for one in questions)
    return [(reply.splitlines() or [""])[0].strip(MARKS) for reply in every]


def by_function(rule: Callable[..., Any], prompt: Prompt, said: str) -> Mention | None:
    """What a function of the user's own finds in an output, which must be a part of it."""
    whose = f"the exact_answer function {name_of(rule)!r}"
    try:
        found = rule(prompt, said)
    except Exception as error:
        raise InputError(
            f"{whose} raised {type(error).__name__} for prompt {prompt.id!r}: {error}"
        ) from error
    if found is None:
        return None
    if not isinstance(found, str) or not trimmed(found) or found not in said:
        raise InputError(
            f"{whose} gave {shown(found)} for prompt {prompt.id!r}, which is no substring of its "
            f"output {shown(said)}; give a part of the output, or None where no answer is in it"
        )
    start = said.index(trimmed(found))
    return start, start + len(trimmed(found))
