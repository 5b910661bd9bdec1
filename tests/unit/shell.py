"""The command line as a shell calls it, in this process, on a tiny model saved in a folder."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from knockgrid.cli import app as cli

LINES = [
    {"id": "rome", "text": "The capital of Italy is", "subject": "Italy", "answers": ["Rome"]},
    {"id": "paris", "text": "The capital of France is", "subject": "France", "answers": ["Paris"]},
]


def code_of(*arguments):
    """The exit code of one command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["knockgrid", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as done:
            return int(done.code or 0)
    return 0


def run(capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    code = code_of(*arguments)
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def saved(path, tokenizer, **more):
    """A tiny Llama of three blocks and two prompts, each other's partners; the folder of both."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes, **more)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path / "model")
    tokenizer.save_pretrained(path / "model")
    lines = [{**one, "swap": other["id"]} for one, other in zip(LINES, LINES[::-1], strict=True)]
    (path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


def sweep_of(folder, *more):
    """The words of a sweep of what was saved."""
    return ("sweep", "--model", folder / "model", "--prompts", folder / "prompts.jsonl", *more)


def sweep(capsys, folder, out, *more):
    """A sweep of what was saved."""
    return run(capsys, *sweep_of(folder, "--out", out, *more))
