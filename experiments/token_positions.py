"""Layer × token position of one prompt: what is restored (or lost) at each token.

python experiments/token_positions.py --direction denoising --act-name mlp_out --window 10
"""

import argparse
from pathlib import Path

import knockgrid as kg


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text", default="The Eiffel Tower is located in the city of")
    parser.add_argument("--subject", default="The Eiffel Tower")
    parser.add_argument("--answer", default="Paris")
    parser.add_argument("--act-name", default="resid_post")
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--direction", choices=["noising", "denoising"], default="denoising")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--metric", default="logp_answer")
    parser.add_argument("--out", type=Path, default=Path("runs/token_positions"))
    given = parser.parse_args()
    model = kg.load(given.model)
    prompt = kg.Prompt(given.text, spans={"subject": given.subject}, answers=[given.answer])
    tokens = len(kg.token_positions(prompt, "all", model))
    rows = kg.per_position(kg.patch(given.act_name, "last", window=given.window), tokens)
    options = {"direction": given.direction, "samples": given.samples}
    table = kg.sweep(model, prompt, rows, out=given.out, **options)
    ax = kg.position_heatmap(table, given.metric, cmap="Purples")
    print(*kg.save(ax, given.out / f"position_heatmap_{given.metric}"), sep="\n")


if __name__ == "__main__":
    main()
