"""The measures against other tools and fifty digits, on rows that hypothesis and models make."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `fifty_digits` is ours
