"""Nothing here is a test: `nox -s faults` runs `run.py`, and tests/unit/test_faults.py a part."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `fault_bench` and others are ours
