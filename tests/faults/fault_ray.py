"""A Ray actor that is killed, in a process of its own: Ray does not outlive a fork."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from fault_bench import Bench, Line

TESTS = Path(__file__).parents[1] / "unit" / "test_ray.py"
KILLED = "test_a_killed_actor_costs_nothing_but_its_time or test_prompts_that_raise_or_kill"


def available() -> bool:
    """Whether Ray is installed here."""
    return importlib.util.find_spec("ray") is not None


def actor_killed(bench: Bench) -> Line:
    """kill -9 of actors in mid-run, as the tests do it: other actors carry their shards out."""
    line = Line("Ray actor killed")
    line.tried += 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run([*command, "-k", KILLED], capture_output=True, text=True, timeout=300)
    passed = done.returncode == 0 and "2 passed" in done.stdout
    line.expect(passed, done.stdout[-2000:])
    return line
