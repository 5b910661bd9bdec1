"""Hostile inputs by the thousand: `nox -s fuzz` runs all of them, the default run a few of each."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `counted` and `hostile` are ours


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """One folder for all inputs, which take turns in the same file."""
    return tmp_path_factory.mktemp("hostile")


def pytest_terminal_summary(terminalreporter) -> None:
    """What ran: the number of inputs that reached each target, and the time that it took."""
    from counted import RAN, total

    if not RAN:
        return
    terminalreporter.section("hostile inputs")
    for name, ran in [*RAN.items(), ("in all", total())]:
        terminalreporter.write_line(f"{name:40} {ran.inputs:>9,} inputs {ran.seconds:>8.1f} s")
