"""doctor: it finds an installation sound, sees planted faults, and tells nothing private."""

import json
import os
import re
import tempfile
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from shell import run

from knockgrid.cli import doctor, self_test
from knockgrid.cli.self_test import Check

NAMES = [
    "its packages are there in the versions it needs",
    "the demo model is there, or can be",
    "there is room for the demo model",
    "an edit that changes nothing gives 0",
    "the staircase executor equals one full pass per cell",
    "a sweep runs on the staircase executor here",
    "a planted effect is the one that plain PyTorch computes",
    "a run that was cut short goes on and is the same",
]


@pytest.fixture
def quick(monkeypatch):
    """The report without the self-test."""
    monkeypatch.setattr(doctor, "self_test", lambda: [Check("planted", True)])
    monkeypatch.setattr(doctor, "requirements", lambda: [])


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder of its own for what is temporary."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class TestSound:
    def test_everything_is_well(self, capsys, scratch, monkeypatch):
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        state, threads = torch.get_rng_state(), torch.get_num_threads()
        started = time.process_time()
        code, printed, said = run(capsys, "doctor")
        assert time.process_time() - started < 20
        assert code == 0, printed + said
        checks, block = printed.split("To paste into an issue:")
        assert [line[8:] for line in checks.splitlines() if line] == NAMES
        assert all(line.startswith("ok      ") for line in checks.splitlines() if line)
        assert block.strip().startswith("### knockgrid doctor")
        assert re.findall(r"- \[x\] (.+)", block) == NAMES
        assert f"- torch: `{torch.__version__}`" in block
        assert list(scratch.iterdir()) == []
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == threads

    def test_for_scripts(self, capsys, quick):
        code, printed, _ = run(capsys, "doctor", "--json")
        found = json.loads(printed)
        assert (code, found["ok"]) == (0, True)
        assert list(found) == ["ok", "versions", "devices", "caches", "environment", "checks"]
        assert found["checks"][-1] == {"name": "planted", "ok": True, "advice": ""}
        assert found["devices"]["processors"] == str(os.cpu_count())

    def test_a_failed_check_is_said_and_ends_with_1(self, capsys, quick, monkeypatch):
        monkeypatch.setattr(
            doctor, "self_test", lambda: [Check("sums", False, "2 + 2 is 5; buy a computer")]
        )
        code, printed, _ = run(capsys, "doctor")
        assert code == 1
        assert "failed  sums: 2 + 2 is 5; buy a computer" in printed
        assert "- [ ] sums – 2 + 2 is 5; buy a computer" in printed
        code, printed, _ = run(capsys, "doctor", "--json")
        assert (code, json.loads(printed)["ok"]) == (1, False)


class TestPlantedFaults:
    """A self-test that cannot fail would be worth nothing."""

    def test_an_effect_where_nothing_changed(self, monkeypatch, scratch):
        def donor(given):
            first, second = given.values()
            return real({first.id: second, second.id: first})

        real = self_test.donor
        monkeypatch.setattr(self_test, "donor", donor)
        (one,) = [c for c in self_test.self_test() if not c.ok]
        assert one.name == NAMES[3]
        assert re.match(r"the largest divergence is [\d.]+ nats; ", one.advice)

    @pytest.mark.parametrize(
        ("change", "failed"),
        [
            (lambda js, o: js + 1e-6 * (o.get("executor") == "reference"), {4}),
            (lambda js, o: js * (1 - 1e-6 * ("layers" in o)), {6}),
            (lambda js, o: js * 0, {6}),
            (lambda js, o: js + 1e-15 * ("out" in o), {7}),
        ],
        ids=["executors differ", "an effect of the wrong size", "none", "another run"],
    )
    def test_a_changed_number_fails_its_check(self, monkeypatch, scratch, change, failed):
        sweep = self_test.sweep

        def changed(*args, **options):
            table = sweep(*args, **options)
            table["js"] = change(table["js"], options)
            return table

        monkeypatch.setattr(self_test, "sweep", changed)
        assert {NAMES.index(one.name) for one in self_test.self_test() if not one.ok} == failed

    @pytest.mark.filterwarnings("ignore::knockgrid.engine.slower.FallbackWarning")
    def test_a_host_that_takes_no_cache(self, monkeypatch, scratch):
        monkeypatch.setattr("knockgrid.host.cache.NAMES", ())
        wrong = {one.name: one.advice for one in self_test.self_test() if not one.ok}
        assert set(wrong) == {NAMES[4], NAMES[5]}
        assert "takes no cache" in wrong[NAMES[5]]
        assert 'pip install "transformers==' in wrong[NAMES[5]]

    def test_an_error_fails_its_check_and_no_other(self, monkeypatch, scratch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(import_module("knockgrid.sweep"), "run", full)
        (one,) = [c for c in self_test.self_test() if not c.ok]
        assert one.name == NAMES[7]
        assert "No space left on device; look at the disk" in one.advice
        assert list(scratch.iterdir()) == []

    def test_packages(self, monkeypatch):
        lines = ["torch>=99", "no-such-package", "numpy>=1", 'sphinx>=99; extra == "docs"']
        monkeypatch.setattr(doctor, "requires", lambda name: lines)
        (one,) = doctor.requirements()
        assert not one.ok
        for words in ("torch 2", "(needs >=99)", "no-such-package is not there"):
            assert words in one.advice
        # knockgrid itself may be on no index; what is lacking is
        assert 'pip install "torch>=99" "no-such-package"' in one.advice
        assert not re.search("numpy|sphinx|knockgrid", one.advice)

    def test_a_cache_that_cannot_be_written(self, monkeypatch, tmp_path):
        monkeypatch.setenv("KNOCKGRID_CACHE", str(tmp_path / "cache"))
        assert next(doctor.place_of_the_demo()).ok
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        one, _ = doctor.place_of_the_demo()
        assert not one.ok
        assert one.advice.endswith("set KNOCKGRID_CACHE to a folder of your own")
        assert "not writable" in dict(doctor.caches())["demo model"]
        model = tmp_path / "cache" / "SmolLM2-135M-Instruct"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(b"x" * 2000)
        assert next(doctor.place_of_the_demo()).ok  # it need not be written again
        assert "2.0 kB" in dict(doctor.caches())["demo model"]

    def test_a_full_disk(self, monkeypatch, tmp_path):
        monkeypatch.setenv("KNOCKGRID_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(
            "shutil.disk_usage", lambda path: SimpleNamespace(total=9, used=9, free=3 * 10**6)
        )
        _, one = doctor.place_of_the_demo()
        assert not one.ok
        assert one.advice.startswith("3.0 MB are free, 2.0 GB are needed")


class TestPrivacy:
    @pytest.fixture(autouse=True)
    def somebody(self, monkeypatch, tmp_path):
        monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
        monkeypatch.setattr("getpass.getuser", lambda: "anna")

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ("/home/anna/.cache/x", "~/.cache/x"),
            ("/home/anna", "~"),
            ("see /home/anna: full", "see ~: full"),
            ("/scratch/anna/hub", "/scratch/~/hub"),
            ("/home/annabel/x", "/home/annabel/x"),
            ("/data/annals/anna", "/data/annals/~"),
            ("savanna and anna", "savanna and anna"),
            (r"D:\anna\hub", r"D:\~\hub"),
        ],
    )
    def test_home_and_name(self, given, wanted):
        assert doctor.anonymous(given) == wanted

    def test_no_name_at_all(self, monkeypatch):
        def none():
            raise KeyError("uid")

        monkeypatch.setattr("getpass.getuser", none)
        assert doctor.anonymous("/home/anna/x") == "~/x"

    def test_values_that_may_be_secrets(self, monkeypatch):
        for name in [*doctor.VARIABLES, *(n for n in os.environ if n.startswith("SLURM_"))]:
            monkeypatch.delenv(name, raising=False)
        shown = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "8", "SLURM_PROCID": "4"}
        shown |= {"CUDA_VISIBLE_DEVICES": "0,3"}
        hidden = {
            "HF_TOKEN": "hf_abcdefgh",
            "HF_ENDPOINT": "http://anna:secret@mirror",
            "SLURM_JOB_USER": "anna",
            "SLURM_JOB_NODELIST": "node[1-4]",
            "PYTORCH_CUDA_ALLOC_CONF": "backend:native",
        }
        for name, value in {**shown, **hidden, "MY_TOKEN": "x"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HOME", "/home/anna/hf")
        found = dict(doctor.environment())
        assert found == {**shown, **dict.fromkeys(hidden, "set"), "HF_HOME": "~/hf"}
        monkeypatch.setenv("HF_TOKEN", "1234")
        assert dict(doctor.environment())["HF_TOKEN"] == "set"

    def test_the_whole_report(self, capsys, quick, monkeypatch):
        monkeypatch.setenv("KNOCKGRID_CACHE", "/home/anna/cache")
        monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
        advice = "/home/anna/x is `broken`"
        monkeypatch.setattr(doctor, "self_test", lambda: [Check("sums", False, advice)])
        for more in ((), ("--json",)):
            code, printed, said = run(capsys, "doctor", *more)
            assert code == 1
            assert not re.search("anna|hf_abc", printed + said)
            assert "~/cache" in printed


def test_a_cache_of_many_files_is_not_added_up_for_ever(monkeypatch, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "weights").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "weights")
    assert doctor.size_of(tmp_path)[1]
    assert 1000 <= doctor.size_of(tmp_path)[0] < 1500  # the link is not followed
    monkeypatch.setattr(doctor, "AT_MOST", -1.0)
    assert doctor.size_of(tmp_path) == (0, False)
    monkeypatch.setenv("KNOCKGRID_CACHE", str(tmp_path))
    (tmp_path / "SmolLM2-135M-Instruct").mkdir()
    assert "more than 0 B" in dict(doctor.caches())["demo model"]
