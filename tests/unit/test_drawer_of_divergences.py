"""What the divergences drawer promises of everything in it."""

import math
import pickle
import subprocess
import sys
from importlib import import_module

import pytest

from knockgrid import divergences
from knockgrid.divergences import js, tv
from knockgrid.divergences.divergence import Divergence, measures_of
from knockgrid.errors import InputError

DRAWER = [getattr(divergences, name) for name in divergences.__all__]


@pytest.mark.parametrize("export", divergences.__all__)
def test_every_exported_name_is_a_documented_measure(export):
    measure = getattr(divergences, export)
    assert isinstance(measure, Divergence)
    assert import_module(f"knockgrid.divergences.{export}").__doc__
    assert getattr(divergences, export) is measure  # not the module of the same name
    first, *rest = measure.__doc__.splitlines()
    assert first.endswith(".")
    for part in ("Source:", "Limit:", "Example:", f"import {export}", f">>> {export}("):
        assert any(part in line for line in rest), part
    assert measure.label
    assert measure.label != measure.name
    (found,) = measures_of([export, measure.name, measure])
    assert found is measure
    assert pickle.loads(pickle.dumps(measure)) == measure


def test_names_are_the_columns_of_the_table():
    columns = "js kl kl_reverse tv logp_clean rank_clean logp_answer rank_answer p_change"
    columns += " logit_diff recovered"
    parts = {"kl_between", "kl_within_answers", "kl_within_rest"}
    assert {measure.name for measure in DRAWER} == set(columns.split()) | parts
    assert (js.upper, tv.upper) == (math.log(2), 1)
    foil = {"logit_diff", "recovered"}
    of_answer = {"logp_answer", "rank_answer", "p_change"} | parts | foil
    for need, names in {"answer": of_answer, "foil": foil, "source": {"recovered"}}.items():
        assert {measure.name for measure in DRAWER if need in measure.needs} == names
    with pytest.raises(InputError, match="unknown metric 'jss'; did you mean 'js'"):
        measures_of("jss")


def test_the_drawer_opens_without_torch():
    code = "import sys, knockgrid.divergences as d; d.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
