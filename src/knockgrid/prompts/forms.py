"""in_chat: the same prompts after a text, or as the beginning of a chat model's own turn."""

from collections.abc import Sequence
from typing import Any

from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt

INSTRUCTION = "Complete the sentence."


def in_chat(prompts: Sequence[Prompt], frame: Any, instruction: str = INSTRUCTION) -> list[Prompt]:
    """The same prompts in a chat model's own turn, after an instruction; or after any other text.

    Example:
        >>> import knockgrid as kg
        >>> rome = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> kg.prompts.in_chat([rome], kg.load("demo").tokenizer)[0].text.splitlines()[-2:]
        ['<|im_start|>assistant', 'The capital of Italy is']
        >>> kg.prompts.in_chat([rome], "It is well known: {}")[0].text
        'It is well known: The capital of Italy is'

    `frame` is the tokenizer of a chat model, whose template is used, with `instruction` as the
    user's turn; or a text that ends with `{}`, where the prompt goes. Spans move with the text,
    swap partners get the same frame, and all else stays, so that tables of both forms can be
    paired. The subject stands in the model's turn only, once. Whether the model still knows the
    answers is for `known` to say.
    """
    before = frame.removesuffix("{}") if isinstance(frame, str) else _turn(frame, instruction)
    if isinstance(frame, str) and not (frame.count("{}") == 1 and frame.endswith("{}")):
        raise InputError(
            f"template {frame!r} needs exactly one {{}}, at its end, where the prompt goes: the "
            "answer follows the prompt"
        )

    def moved(prompt: Prompt, swap: Prompt | None) -> Prompt:
        by = len(before)
        spans = {name: (int(a) + by, int(b) + by) for name, (a, b) in prompt.spans.items()}
        return prompt.replace(text=before + prompt.text, spans=spans, swap=swap)

    # a partner that names the prompt as its own is not followed
    return [moved(one, None if one.swap is None else moved(one.swap, None)) for one in prompts]


def _turn(tokenizer: Any, instruction: str) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{type(tokenizer).__name__} has no chat template; give a text of your own that ends "
            "with {}"
        )
    turns = [{"role": "user", "content": instruction}]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
