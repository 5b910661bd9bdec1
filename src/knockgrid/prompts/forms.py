"""Other forms of the same prompts: behind a text, or as a chat model's own turn."""

from collections.abc import Sequence
from typing import Any

from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt

INSTRUCTION = "Complete the sentence."


def in_template(prompts: Sequence[Prompt], template: str) -> list[Prompt]:
    """The same prompts behind another text, with their spans moved along.

    Example:
        >>> rome = Prompt("The capital of Italy is", spans={"subject": "Italy"}, answers=["Rome"])
        >>> framed = in_template([rome], "It is well known: {}")[0]
        >>> framed.text, framed.span_text("subject")
        ('It is well known: The capital of Italy is', 'Italy')

    `template` ends with `{}`, where a prompt's text goes, since the answer follows it. Ids,
    answers, relations and groups stay, so that tables of both forms can be paired; swap partners
    get the same frame.

    Raises:
        InputError: a template without `{}` at its end, or with another one before.
    """
    if template.count("{}") != 1 or not template.endswith("{}"):
        raise InputError(
            f"template {template!r} needs exactly one {{}}, at its end, where the prompt goes: the "
            "answer follows the prompt"
        )
    return [framed(prompt, template.removesuffix("{}")) for prompt in prompts]


def in_chat(
    prompts: Sequence[Prompt], tokenizer: Any, instruction: str = INSTRUCTION
) -> list[Prompt]:
    """The same prompts as the beginning of a chat model's own turn, after an instruction.

    Example:
        >>> import knockgrid as kg
        >>> rome = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> kg.in_chat([rome], kg.load("demo").tokenizer)[0].text.splitlines()[-2:]
        ['<|im_start|>assistant', 'The capital of Italy is']

    The subject stands in the model's turn only, once, so that all rows mean what they mean without
    the frame. Whether the model still knows the answers is for `known` to say.

    Raises:
        InputError: a tokenizer without a chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{type(tokenizer).__name__} has no chat template; use in_template() with a text of "
            "your own"
        )
    turns = [{"role": "user", "content": instruction}]
    before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return [framed(prompt, before) for prompt in prompts]


def framed(prompt: Prompt, before: str) -> Prompt:
    """A prompt behind a text; a partner that names this prompt as its own is not followed."""
    partner = prompt.swap
    if partner is not None:
        partner = _moved(partner, before).replace(swap=None)
    return _moved(prompt, before).replace(swap=partner)


def _moved(prompt: Prompt, before: str) -> Prompt:
    by = len(before)
    spans = {name: (int(a) + by, int(b) + by) for name, (a, b) in prompt.spans.items()}
    return prompt.replace(text=before + prompt.text, spans=spans)
