"""F3: KL divergence over layer and generated token, from table to figure.

python experiments/generated_tokens.py --layers 0 15 16 17 18 19 20 21 27 --mode free_run
"""

import argparse
from pathlib import Path

import knockgrid as kg


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text", default="The Eiffel Tower is located in the city of")
    parser.add_argument("--subject", default="The Eiffel Tower")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[0, 15, 16, 17, 18, 19, 20, 21, 27]
    )
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--mode", default="prompt_only")
    parser.add_argument("--metric", default="kl")
    parser.add_argument("--out", type=Path, default=Path("runs/generated_tokens"))
    given = parser.parse_args()
    prompt = kg.Prompt(given.text, spans={"subject": given.subject})
    row = kg.patch("resid_post", "subject")
    options = {"layers": given.layers, "n_tokens": given.tokens, "mode": given.mode}
    table = kg.sweep(given.model, prompt, row, out=given.out, **options)
    ax = kg.token_heatmap(table, given.metric, annotate=True)
    print(*kg.save(ax, given.out / f"token_heatmap_{given.metric}"), sep="\n")


if __name__ == "__main__":
    main()
