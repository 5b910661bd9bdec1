"""The truth benchmark on one turn of twelve small models: nothing false is held."""

import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "truth.py"
SMALL = {"n_layers": 6, "n_relations": 12, "prompts_each": 2}
TURN = ["--models", "12", "--seed", "1"]


@pytest.fixture(scope="module")
def truth():
    loader = SourceFileLoader("truth", str(SCRIPT))
    found = ModuleType("truth")
    loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """In a process of its own, where no types are checked: a third of the time."""
    out = tmp_path_factory.mktemp("truth")
    command = [sys.executable, str(SCRIPT), *TURN, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = out.glob("*.json")
    return pd.DataFrame([line for file in files for line in json.loads(file.read_text())])


def test_nothing_false_is_held(lines):
    assert set(lines["variant"]) >= {"plain", "nothing", "two_hops", "backup"}
    assert not (lines["right"] == False).any()  # noqa: E712  # None is no answer


def test_what_is_true_of_plain_models_is_held(lines):
    plain = lines[(lines["variant"] == "plain") & lines["so"].eq(True)]
    assert plain["right"].eq(True).mean() >= 0.9
    ordered = plain[plain["kind"] == "subject, attention, last"]
    assert len(ordered) == 4


def test_a_false_claim_is_counted(truth):
    made = truth.drawn(0, seed=1, **SMALL)
    true, (read, _) = truth.truth(made), made.reads[0]
    for claim, value, right in (
        ("attention: the peak", f"{read}", True),
        ("attention: the peak", f"{read + 1}", False),
        ("attention exceeds BOS", f"at {read}", True),
        ("attention exceeds BOS", f"at {read}–{read + 1}", False),
        ("subject: the step ends", f"{read - 0.5}", True),
        ("subject: the step ends", f"{read + 2}", False),
        ("through tokens between", "", False),
    ):
        line = {"claim": claim, "value": value, "confirmed": value}
        assert truth.is_true(line, true) is right, claim
    told = [{"variant": "plain", "kind": "peak", "model": i, "right": i > 0} for i in range(4)]
    (row,) = truth.scored(pd.DataFrame(told)).to_dict("records")
    assert (row["true"], row["false"]) == (3, 1)


def test_an_interrupted_run_goes_on(truth, tmp_path, monkeypatch, capsys):
    counted = []

    def measured(made, share):
        counted.append(made)
        if len(counted) == 2:
            raise KeyboardInterrupt
        yield {"kind": "peak", "outcome": "held", "right": True, "so": True}

    monkeypatch.setattr(truth, "measured", measured)
    monkeypatch.setattr(truth, "drawn", lambda i, seed: type("Made", (), {"variant": "plain"}))
    monkeypatch.setattr(sys, "argv", ["truth.py", "--models", "3", "--out", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        truth.main()
    assert len(list(tmp_path.glob("*.json"))) == 1
    truth.main()
    assert len(counted) == 4  # the first is not measured again
    assert "peak" in capsys.readouterr().out
    assert all(json.loads(file.read_text()) for file in tmp_path.glob("*.json"))
