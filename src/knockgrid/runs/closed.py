"""Closed lists: what a setting may say, written down so that no heavy import is needed.

The places where these lists are decided import models. `tests/unit/test_command_line.py` holds each
list against its place.
"""

CLOSED: dict[str, tuple[str, ...]] = {
    "direction": ("noise", "denoise"),
    "dtype": ("float32", "float64", "bfloat16", "float16"),
    "executor": ("auto", "staircase", "rectangle", "reference"),
    "mode": ("prompt_only", "persistent", "free_run"),
    "unit": ("nats", "bits"),
}
ENGINES = ("single", "ray")
