"""What the command line promises: JSON, exit codes, suggestions, extras."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shell import run

from knockgrid import InputError
from knockgrid.cli import app as cli
from knockgrid.spec import FIELDS

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("knockgrid")
COMMANDS = {command.__name__: command for command in cli.COMMANDS}
PROMPTS = (
    '{"id": "rome", "text": "The capital of Italy is", "subject": "Italy", "swap": "paris"}\n'
    '{"id": "paris", "text": "The capital of France is", "subject": "France", "swap": "rome"}\n'
)


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path, tiny_folder):
    """A saved tiny Llama and a prompt file."""
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "prompts.jsonl").write_text(PROMPTS)
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures that take no time, drawn by something that talks on standard output."""

    def draw(table, folder, *, kind="layer_heatmap", metric="js", by=None):
        print("a library talks")
        return (folder / f"{kind}_{metric}.svg",)

    monkeypatch.setattr("knockgrid.reports.draw.draw", draw)


def sweep(capsys, folder, out, *more):
    given = ("--model", folder / "model", "--prompts", folder / "prompts.jsonl", "--out", out)
    return run(capsys, "sweep", *given, *more)


class TestJson:
    def test_every_command_of_use_to_a_script_has_it(self):
        without = {
            n for n, c in COMMANDS.items() if "as_json" not in inspect.signature(c).parameters
        }
        assert not without

    def test_a_run_from_its_sweep_to_its_export(self, capsys, folder, tmp_path, no_pictures):
        out = tmp_path / "run"
        code, printed, said = sweep(capsys, folder, out, "--json")
        assert code == 0, said
        assert "a library talks" in said
        found = json.loads(printed)
        assert found["run"] == str(out)
        assert (found["finished"], found["rows"], found["prompts"]) == (True, 4 * 3 * 2, 2)
        assert found["without_value"] == 0
        assert found["dropped"] == {}
        assert found["executor"] == "staircase"
        pictures = [str(out / f"{kind}_js.svg") for kind in ("layer_heatmap", "layer_curve")]
        assert found["written"] == [str(out / "manifest.json"), *pictures]

        wanted = ("--kind", "layer_curve", "--metric", "kl")
        _, printed, _ = run(capsys, "figure", out, *wanted, "--json")
        same = {"run": str(out), "kind": "layer_curve", "metric": "kl"}
        assert json.loads(printed) == {**same, "written": [str(out / "layer_curve_kl.svg")]}

        code, printed, _ = run(capsys, "verify", out, "--cells", 2, "--json")
        assert (code, json.loads(printed)["ok"]) == (0, True)

        target = tmp_path / "rows.csv"
        _, printed, _ = run(capsys, "export", out, "--out", target, "--json")
        found = json.loads(printed)
        assert (found["rows"], found["written"]) == (24, [str(target)])
        assert len(pd.read_csv(target)) == 24

        _, printed, _ = run(capsys, "compact", out, "--json")
        found = json.loads(printed)
        assert (found["rows"], found["written"]) == (24, [str(out / "table.parquet")])

    @pytest.mark.filterwarnings("ignore:.*is not finished")
    def test_a_part_of_a_run_is_not_finished(self, capsys, folder, tmp_path, no_pictures):
        more = ("--set", "batch=1", "--shard", "1/2", "--json")
        code, printed, said = sweep(capsys, folder, tmp_path / "run", *more)
        assert code == 0, said
        found = json.loads(printed)
        assert (found["finished"], found["rows"], found["prompts"]) == (False, 12, 1)
        assert "written" not in found

    def test_a_dry_run(self, capsys, folder, tmp_path):
        _, printed, _ = sweep(capsys, folder, tmp_path / "run", "--dry-run", "--json")
        found = json.loads(printed)
        assert (found["prompts"], found["cells"]) == (2, 24)
        assert found["seconds"] > 0
        assert found["memory"] > found["weights"] > 0
        assert not (tmp_path / "run").exists()

    def test_check(self, capsys, folder, monkeypatch):
        from knockgrid.cli import check_model

        monkeypatch.setattr(check_model, "kinds", lambda: planted_kinds())
        code, printed, _ = run(capsys, "check", folder / "model", "--json")
        found = json.loads(printed)
        assert (code, found["n_layers"], found["architecture"]) == (0, 4, "LlamaForCausalLM")
        good, bad = found["kinds"]
        assert (good["kind"], good["executor"], good["refused"]) == ("knockout", "staircase", None)
        assert good["max_difference"] < 1e-5
        assert "attn_outt" in bad["refused"]
        _, printed, _ = run(capsys, "check", folder / "model")
        _, first, second = printed.splitlines()
        assert first.index("staircase") == second.index("refused")  # aligned

    def test_facts(self, capsys):
        _, printed, said = run(capsys, "facts", "--json")
        assert said == ""  # its lines are for people
        found = json.loads(printed)
        assert found["facts"] == sum(one["facts"] for one in found["relations"]) == 1586
        assert len(found["relations"]) == 34
        assert found["relations"][0]["example"].count(" ") > 3
        code, printed, said = run(capsys, "facts", "--json", "--jsonl")
        assert (code, printed) == (2, "")
        assert "--json and --jsonl are both given" in said

    def test_reproduce_and_evidence(self, capsys, tmp_path, monkeypatch):
        def made(study, load, settings, own):
            print("a library talks")
            yield own / "table.parquet"

        monkeypatch.setattr("knockgrid.cli.reproduce.reproduce", made)
        names = ["heads", "paths"]
        _, printed, _ = run(capsys, "reproduce", *names, "--out", tmp_path, "--quick", "--json")
        assert json.loads(printed) == {
            "out": str(tmp_path),
            "studies": names,
            "quick": True,
            "written": [str(tmp_path / name / "table.parquet") for name in names],
        }

        from knockgrid.runs import write_table

        def found(spec, out):
            frame = pd.DataFrame({"outcome": ["confirmed", "failed", "confirmed"]})
            frame.attrs = {"knockgrid": {"unit": "nats"}}
            write_table(frame, out / "claims.parquet")
            yield out / "claims.parquet"

        monkeypatch.setattr("knockgrid.reports.evidence.evidence", found)
        code, printed, said = run(capsys, "evidence", "--out", tmp_path, "--json")
        assert code == 0, said
        assert json.loads(printed) == {
            "out": str(tmp_path),
            "claims": {"confirmed": 2, "failed": 1},
            "written": [str(tmp_path / "claims.parquet")],
        }

    def test_a_command_that_fails_prints_none(self, capsys, folder, tmp_path):
        code, printed, said = sweep(capsys, folder, tmp_path / "run", "--json", "--layers", 9)
        assert (code, printed) == (2, "")
        assert said.splitlines()[-1].startswith("knockgrid: layer 9 is out of range")


def planted_kinds():
    from knockgrid.edits import knockout, patch

    return [knockout(window=1), patch("attn_outt", "subject")]


def codes_in(text):
    """Exit codes that a text lists, one or more a line before their meaning."""
    found = re.findall(r"^\W*(\d+(?:, \d+)*)(?: \||  +)", text, re.M)
    return {int(code) for group in found for code in group.split(", ")}


CODES = {0, 1, 2, 3, 4, 130, 141, 143}


class TestExitCodes:
    def test_141_a_reader_that_has_seen_enough(self):
        """As `head` does: more output than a pipe holds, of which one line is read."""
        process = subprocess.Popen(
            [str(SCRIPT), "facts", "--jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert (process.wait(timeout=60), said) == (141, b"")

    def test_help_and_pages_list_them_all(self, capsys):
        code, printed, _ = run(capsys, "--help")
        assert code == 0
        assert codes_in(printed[printed.index("Exit codes") :]) == CODES
        for page in ("runs.md", "command_line.md"):
            assert codes_in((ROOT / "docs" / page).read_text("utf-8")) == CODES

    def failing(self, capsys, monkeypatch, folder, tmp_path, error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("knockgrid.runs.running.run", fail)
        return sweep(capsys, folder, tmp_path / "run")

    def test_3_some_prompts_failed(self, capsys, monkeypatch, folder, tmp_path):
        import knockgrid as kg

        error = kg.runs.PromptsFailed({"rome": "OSError: planted"}, tmp_path)
        code, _, said = self.failing(capsys, monkeypatch, folder, tmp_path, error)
        assert code == 3
        assert said.startswith("knockgrid: ")
        assert "planted" in said

    def test_4_too_little_memory(self, capsys, monkeypatch, folder, tmp_path):
        from knockgrid.engine.memory import TooLittleMemory

        error = TooLittleMemory("prompts of 9 tokens")
        code, printed, said = self.failing(capsys, monkeypatch, folder, tmp_path, error)
        assert (code, printed) == (4, "")
        assert said == f"knockgrid: {error}\n"

    @pytest.mark.parametrize(("number", "wanted"), [(2, 130), (15, 143)])
    def test_stopped(self, capsys, monkeypatch, folder, tmp_path, number, wanted):
        from knockgrid.runs.interrupt import Stopped

        error = Stopped("stopped after 1 of 2", number)
        found = self.failing(capsys, monkeypatch, folder, tmp_path, error)
        assert found == (wanted, "", "knockgrid: stopped after 1 of 2\n")
        assert self.failing(capsys, monkeypatch, folder, tmp_path, KeyboardInterrupt())[0] == 130

    def test_an_error_of_the_program_is_not_hidden(self, capsys, monkeypatch, folder, tmp_path):
        with pytest.raises(ZeroDivisionError):
            self.failing(capsys, monkeypatch, folder, tmp_path, ZeroDivisionError())

    def test_1_a_run_that_does_not_hold(self, capsys, folder, tmp_path, no_pictures):
        sweep(capsys, folder, tmp_path / "run")
        (shard,) = (tmp_path / "run" / "shards").glob("*.parquet")
        rows = pq.read_table(shard)
        changed = rows.set_column(rows.column_names.index("js"), "js", pc.add(rows["js"], 0.1))
        pq.write_table(changed.replace_schema_metadata(rows.schema.metadata), shard)
        code, printed, said = run(capsys, "verify", tmp_path / "run", "--cells", 1, "--json")
        assert code == 1, said
        assert json.loads(printed)["ok"] is False

    def test_the_version(self, capsys):
        from importlib.metadata import version

        assert run(capsys, "--version") == (0, f"knockgrid {version('knockgrid')}\n", "")

    def test_a_short_h_is_help(self, capsys):
        assert run(capsys, "-h") == run(capsys, "--help")

    def test_no_arguments_show_the_help(self, capsys):
        code, printed, said = run(capsys)
        assert (code, printed) == (2, "")
        assert "Exit codes" in said


def flag(name, given):
    """How the shell gives a field of a `Spec`: by its flag, or by `--set`."""
    own = {name for name, one in FIELDS.items() if one.metadata["flag"]}
    field = name.replace("-", "_")
    if field in own or field not in FIELDS or field == "layers":
        return [f"--{name}", given]
    return ["--set", f"{field}={given}"]


class TestMisspelt:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (["swep"], "no such command 'swep'; did you mean 'sweep'? Commands: demo, sweep"),
            (["docter", "--json"], "no such command 'docter'; did you mean 'doctor'?"),
            (["xyzzy"], "no such command 'xyzzy'. Commands: demo"),
            (
                ["sweep", "--relatoin", "x"],
                "no such option '--relatoin' of knockgrid sweep; did you mean '--relation'?",
            ),
            (
                ["sweep", "--no-noise-flor"],
                "did you mean '--no-noise-floor'? All are in knockgrid sweep --help",
            ),
            (["verify", "--cels=3", "x"], "no such option '--cels' of knockgrid verify; did you"),
            (["--hlep"], "no such option '--hlep' of knockgrid; did you mean '--help'?"),
            (["verify"], "missing argument 'RUN'; see knockgrid verify --help"),
            (["verify", "a", "b"], "unexpected extra argument"),
            (["verify", "a", "--cells", "x"], "'--cells'"),
            (["facts", "--relation"], "'--relation' requires an argument"),
            (["facts", "--relation", "country_langage"], "did you mean 'country_language'?"),
            (["figure", "--kind", "curv", "nowhere"], "holds no run"),
            (["export", "x"], "missing option '--out'"),
            (
                ["report", "--compare", "x"],
                "'--compare' requires 2 arguments; see knockgrid report",
            ),
            *(
                (["sweep", *flag(name, given), "--dry-run"], says)
                for name, given, says in (
                    ("mode", "promt_only", "mode 'promt_only'; did you mean 'prompt_only'?"),
                    ("unit", "nat", "unit 'nat'; did you mean 'nats'?"),
                    ("executor", "stairs", "did you mean 'staircase'?"),
                    ("direction", "denoize", "did you mean 'denoising'?"),
                    ("dtype", "flot32", "did you mean 'float32'?"),
                    ("form", "cht", "did you mean 'chat'?"),
                    ("label-form", "cht", "unknown label_form 'cht'"),
                    ("engine", "rey", "did you mean 'ray'?"),
                    ("n-tokens", "0", "setting 'n_tokens' is 0"),
                    ("samples", "0", "setting 'samples' is 0"),
                    ("shard", "3/2", "shard is '3/2'"),
                    ("layers", "0-", "layers are '0-'"),
                    ("layers", "3-1", "layers are '3-1'"),
                )
            ),
            (["sweep", "--device", "cud"], "unknown device 'cud'; did you mean 'cpu'?"),
            (["check", "demo", "--device", "meta:x"], "unknown device 'meta:x'"),
        ],
    )
    def test_one_line_and_exit_code_2(self, capsys, given, says):
        code, printed, said = run(capsys, *given)
        assert (code, printed) == (2, "")
        (line,) = said.splitlines()
        assert line.startswith("knockgrid: ")
        assert says.lower() in line.lower()

    def test_letters_that_steer_a_terminal_are_shown_escaped(self, capsys):
        for given in (["sw\x1b[31mep"], ["facts", "--a\x1b[31m\nb"]):
            code, _, said = run(capsys, *given)
            assert code == 2
            assert "\x1b" not in said
            assert len(said.splitlines()) == 1


class TestExtras:
    """What is not installed is named with the extra that brings it, in one sentence."""

    def test_probes(self, monkeypatch, tiny_llama, prompts):
        import knockgrid as kg

        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(InputError, match=r'pip install "knockgrid\[probes\]"$'):
            kg.evidence.probe_auc(tiny_llama, prompts, ["last"], layers=[0], progress=False)

    def test_a_figure_of_probes(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        code, printed, said = run(capsys, "reproduce", "error_detection", "--out", tmp_path)
        assert (code, printed) == (2, "")
        assert said == (
            "knockgrid: error_detection needs scikit-learn, which is not installed; "
            'pip install "knockgrid[probes]"\n'
        )

    def test_data_sets_of_the_hub(self, monkeypatch):
        import knockgrid as kg

        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(InputError, match="hf:some/facts:test needs the package datasets"):
            list(kg.read_prompts("hf:some/facts:test"))


class TestTerminal:
    def test_colours_of_a_command(self, capsys, folder, monkeypatch):
        from knockgrid.cli import check_model

        monkeypatch.setattr(check_model, "kinds", planted_kinds)
        _, plain, _ = run(capsys, "check", folder / "model")
        assert "\x1b" not in plain
        monkeypatch.setenv("FORCE_COLOR", "1")
        _, coloured, _ = run(capsys, "check", folder / "model")
        assert "\x1b[32mstaircase\x1b[0m" in coloured
        assert "\x1b[31mrefused\x1b[0m" in coloured
        assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
        monkeypatch.setenv("NO_COLOR", "1")
        assert run(capsys, "check", folder / "model")[1] == plain

    def test_written_paths_stand_alone(self, capsys, folder, tmp_path, no_pictures, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        _, printed, _ = sweep(capsys, folder, tmp_path / "a run", "--layers", 0)
        assert str(tmp_path / "a run" / "manifest.json") in printed.splitlines()
