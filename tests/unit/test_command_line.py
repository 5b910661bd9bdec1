"""What the command line promises: JSON, exit codes, suggestions, completion, colours, bars."""

import inspect
import io
import json
import re
import resource
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shell import run

from knockgrid import InputError, spec
from knockgrid.cli import app as cli
from knockgrid.cli import values
from knockgrid.display import terminal
from knockgrid.engine import executors
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    """A saved tiny Llama and a prompt file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("command_line")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(tiny_tokenizer), num_attention_heads=4, **sizes)
    LlamaForCausalLM(config).save_pretrained(path / "model")
    tiny_tokenizer.save_pretrained(path / "model")
    (path / "prompts.jsonl").write_text(PROMPTS)
    return path


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
        assert (found["finished"], found["rows"], found["prompts"]) == (True, 2 * 3 * 2, 2)
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
        assert (found["rows"], found["written"]) == (12, [str(target)])
        assert len(pd.read_csv(target)) == 12

        _, printed, _ = run(capsys, "compact", out, "--json")
        found = json.loads(printed)
        assert (found["rows"], found["written"]) == (12, [str(out / "table.parquet")])

    @pytest.mark.filterwarnings("ignore:.*is not finished")
    def test_a_part_of_a_run_is_not_finished(self, capsys, folder, tmp_path, no_pictures):
        more = ("--set", "batch=1", "--shard", "1/2", "--json")
        code, printed, said = sweep(capsys, folder, tmp_path / "run", *more)
        assert code == 0, said
        found = json.loads(printed)
        assert (found["finished"], found["rows"], found["prompts"]) == (False, 6, 1)
        assert "written" not in found

    def test_a_dry_run(self, capsys, folder, tmp_path):
        _, printed, _ = sweep(capsys, folder, tmp_path / "run", "--dry-run", "--json")
        found = json.loads(printed)
        assert (found["prompts"], found["cells"]) == (2, 12)
        assert found["seconds"] > 0
        assert found["memory"] > found["weights"] > 0
        assert not (tmp_path / "run").exists()

    def test_check(self, capsys, folder, monkeypatch):
        from knockgrid.cli import check_model

        monkeypatch.setattr(check_model, "kinds", lambda: planted_kinds())
        code, printed, _ = run(capsys, "check", folder / "model", "--json")
        found = json.loads(printed)
        assert (code, found["n_layers"], found["architecture"]) == (0, 2, "LlamaForCausalLM")
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


def shell(shell_name, line, **more):
    """What a shell is offered for a line, with the cursor at its end; and the processor seconds."""
    words = line.split(" ")
    given = {
        "_KNOCKGRID_COMPLETE": f"complete_{shell_name}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "PATH": str(SCRIPT.parent),
        "PYTHONPATH": str(Path(cli.__file__).parents[2]),
        **more,
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(SCRIPT)], env=given, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == ""
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class TestCompletion:
    def test_each_list_is_that_of_its_place(self):
        from knockgrid.edits import layers as _layers
        from knockgrid.engine import checks as _checks
        from knockgrid.runs import store, study

        lists = values.VALUES
        assert lists["metric"] == spec.METRICS
        assert lists["mode"] == _checks.MODES
        assert spec.allowed("direction") == _checks.DIRECTIONS
        assert spec.allowed("unit") == tuple(_checks.UNITS)
        assert lists["form"] == study.FORMS
        assert lists["row"] == spec.ROWS
        assert lists["engine"] == spec.ENGINES
        assert set(lists["format"]) == set(store.FORMATS)
        assert set(lists["source"]) > {"noise:1", "noise", "swap", "zero", "mean"}
        assert "donor" not in lists["source"]  # it needs a prompt
        assert {*spec.allowed("executor"), "free_run"} == {"auto", *executors.__all__}
        assert set(_layers.RULES) < set(lists["window"])
        relations = values.relations()
        assert len(relations) == 34

        from knockgrid.prompts import facts

        assert relations == tuple(dict.fromkeys(p.relation for p in facts()))

    @pytest.mark.parametrize(
        "option",
        ["mode", "more", "form", "source", "window", "layers"],
    )
    def test_a_sweep_takes_each_value(self, tiny_llama, prompts, option):
        """A value that is offered is one that the tool takes."""
        from knockgrid.engine.setup import set_up
        from knockgrid.runs.choose import in_form
        from knockgrid.runs.job import treatments_of
        from knockgrid.spec import Spec, rows_as_data

        for value in values.VALUES[option]:
            given = int(value) if value.isdecimal() else value
            if option == "form":
                if value == "plain":
                    assert in_form(prompts, value, tiny_llama) == prompts
                continue
            words = {"source": "sources", "window": "windows"}
            rows = rows_as_data(**({words[option]: [given]} if option in words else {}))
            own = {option: given} if option not in (*words, "more") else {}
            own |= dict([value.split("=")]) if option == "more" else {}
            spec = Spec(interventions=rows, metrics=["js"], **own)
            rows = [one for one in treatments_of(spec) if one.source or "denoising" not in value]
            set_up(tiny_llama, prompts[:1], rows, spec)

    def test_every_list_belongs_to_an_option(self):
        names = {name for c in cli.COMMANDS for name in inspect.signature(c).parameters}
        assert set(values.VALUES) <= names

    def test_bash(self):
        commands = shell("bash", "knockgrid ")[0].split()
        assert set(commands) == set(COMMANDS)
        assert shell("bash", "knockgrid sw")[0].split() == ["sweep"]
        options = shell("bash", "knockgrid sweep --so")[0].split()
        assert options == ["--source"]
        assert shell("bash", "knockgrid sweep --source s")[0].split() == ["swap"]
        assert shell("bash", "knockgrid sweep --row ")[0].split() == [
            "subject",
            "attention",
            "last",
        ]
        assert shell("bash", "knockgrid facts --relation country_l")[0].split() == [
            "country_language"
        ]
        assert shell("bash", "knockgrid reproduce paths err")[0].split() == ["error_detection"]
        assert "--help" in shell("bash", "knockgrid swep --")[0].split()  # and no error

    def test_zsh_and_fish(self):
        zsh = shell("zsh", "knockgrid sweep --mode ")[0]
        assert zsh.startswith("_arguments ")
        assert re.findall(r'"([a-z_]+)"', zsh) == ["prompt_only", "persistent", "free_run"]
        assert '"sweep":' in shell("zsh", "knockgrid sw")[0]
        fish = shell("fish", "knockgrid figure --kind ")[0].split()
        assert fish == list(values.VALUES["kind"])
        assert shell("fish", "knockgrid sw")[0].startswith("sweep\tSweep a model")

    def test_bash_itself(self):
        """The script that is installed, in a real bash."""
        script = (
            'eval "$(_KNOCKGRID_COMPLETE=source_bash knockgrid)"\n'
            "complete -p knockgrid\n"
            "COMP_WORDS=(knockgrid sweep --mode '') COMP_CWORD=3\n"
            '_knockgrid_completion knockgrid\necho "${COMPREPLY[@]}"\n'
        )
        source = str(Path(cli.__file__).parents[2])
        path = f"{SCRIPT.parent}:/usr/local/bin:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            env={"PATH": path, "PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=False,
        )
        registered, offered = done.stdout.splitlines()
        assert "-F _knockgrid_completion knockgrid" in registered
        assert offered == "prompt_only persistent free_run"

    def test_it_is_quick_and_loads_no_model(self):
        line = "knockgrid facts --relation c"
        assert min(shell("bash", line)[1] for _ in range(3)) < 0.6
        loaded = (
            "import sys\nfrom knockgrid.cli import app as cli\n"
            "from knockgrid.cli import values\n"
            "values.relations()\n"
            "assert not {'torch', 'pandas', 'pydantic', 'matplotlib'} & set(sys.modules)"
        )
        source = str(Path(cli.__file__).parents[2])
        subprocess.run([sys.executable, "-c", loaded], env={"PYTHONPATH": source}, check=True)


class Terminal(io.StringIO):
    def __init__(self, isatty=True):
        super().__init__()
        self.is_one = isatty

    def isatty(self):
        return self.is_one


class TestTerminal:
    @pytest.mark.parametrize(
        ("isatty", "env", "wanted"),
        [
            (True, {}, True),
            (False, {}, False),
            (True, {"NO_COLOR": "1"}, False),
            (True, {"NO_COLOR": ""}, True),
            (False, {"FORCE_COLOR": "1"}, True),
            (False, {"FORCE_COLOR": ""}, False),
            (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
            (True, {"TERM": "dumb"}, False),
        ],
    )
    def test_colours(self, monkeypatch, isatty, env, wanted):
        monkeypatch.setenv("TERM", "xterm")
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert terminal.colours(Terminal(isatty)) is wanted

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

    def test_width(self, monkeypatch):
        assert terminal.width() is None  # a pipe
        monkeypatch.setenv("COLUMNS", "44")
        assert terminal.width() == 44
        for bad in ("", "0", "wide", "-3"):
            monkeypatch.setenv("COLUMNS", bad)
            assert terminal.width() is None

    @pytest.mark.parametrize("columns", [1, 20, 40, 60, 200])
    def test_lines_fit_and_no_word_is_broken(self, monkeypatch, columns):
        heading, path = "ok      ", "/a/rather-long/path-with/many-parts_and-a.file.parquet"
        text = f"what was written lies in {path} and may be copied from there"
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = terminal.hung(heading, text).splitlines()
        assert " ".join(" ".join(lines).split()) == f"ok {text}"
        assert any(path in line for line in lines)
        for line in lines:
            assert len(line) <= max(columns, 12) or len(line.split()) == 1

    def test_the_list_of_facts_fits_a_narrow_terminal(self, capsys, monkeypatch):
        _, wide, _ = run(capsys, "facts")
        assert len(wide.splitlines()) == 35
        starts = {line.index("  ", 8) for line in wide.splitlines()[:-1] if line[7] != " "}
        assert len({re.match(r" *\d+  \w+ +", line).end() for line in wide.splitlines()[:-1]}) == 1
        assert starts
        monkeypatch.setenv("COLUMNS", "40")
        _, narrow, _ = run(capsys, "facts")
        assert max(map(len, narrow.splitlines())) <= 40
        assert narrow.split() == wide.split()

    def test_written_paths_stand_alone(self, capsys, folder, tmp_path, no_pictures, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        _, printed, _ = sweep(capsys, folder, tmp_path / "a run", "--layers", 0)
        assert str(tmp_path / "a run" / "manifest.json") in printed.splitlines()


class TestProgress:
    def test_where_it_is_shown(self, monkeypatch):
        from knockgrid.display import progress as _progress

        def shown(progress=True):
            with _progress.bar(3, " cells", "sweep", progress) as bar:
                return not bar.disable and bar.delay == 0

        monkeypatch.setattr("sys.stderr", Terminal(False))
        assert not shown()
        monkeypatch.setattr("sys.stderr", Terminal(True))
        assert shown()
        assert not shown(progress=False)
        monkeypatch.setattr("sys.stderr", Terminal(False))
        kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=1))
        monkeypatch.setitem(sys.modules, "IPython", kernel)
        assert shown()
        console = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
        monkeypatch.setitem(sys.modules, "IPython", console)
        assert not shown()

    def test_a_sweep_shows_it_on_standard_error(self, tiny_llama, prompts, monkeypatch, capsys):
        import knockgrid as kg

        for isatty in (False, True):
            stream = Terminal(isatty)
            monkeypatch.setattr("sys.stderr", stream)
            kg.sweep(tiny_llama, prompts[0], kg.knockout(window=1), layers=[0], progress=True)
            assert ("sweep" in stream.getvalue()) is isatty
        assert capsys.readouterr().out == ""

    def test_a_batch_job_shows_a_line_a_minute(self, monkeypatch):
        """Nothing in the first minute, and no carriage returns."""
        from knockgrid.display import progress as _progress

        clock = types.SimpleNamespace(now=0.0)
        stream = Terminal(False)
        monkeypatch.setattr("sys.stderr", stream)
        with _progress.bar(398, " cells", "sweep", True) as bar:
            bar._time = lambda: clock.now
            bar.start_t = bar.last_print_t = 0.0
            for second in range(1, 200):
                clock.now = float(second)
                bar.update(2)
                assert (stream.getvalue() == "") == (second < 60)
        assert stream.getvalue().splitlines() == [
            "sweep: 30 % of 398 cells, 01:00 gone, 02:19 to go",
            "sweep: 60 % of 398 cells, 02:00 gone, 01:19 to go",
            "sweep: 90 % of 398 cells, 03:00 gone, 00:19 to go",
            "sweep: 100 % of 398 cells, 03:19 gone, 00:00 to go",
        ]
        assert "\r" not in stream.getvalue()

    def test_a_notebook_without_widgets_is_not_warned(self):
        """tqdm warns once, when it is first imported in a notebook that has no `ipywidgets`."""
        kernel = (
            "import sys, types\n"
            "shell = types.SimpleNamespace(config={'IPKernelApp': 1}, kernel=1)\n"
            "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
            "sys.modules['ipykernel'] = types.ModuleType('ipykernel')\n"
            "sys.modules['ipykernel.zmqshell'] = types.ModuleType('ipykernel.zmqshell')\n"
            "sys.modules['ipywidgets'] = None\n"
        )
        source = str(Path(cli.__file__).parents[2])

        def warned(*lines):
            code = kernel + "\n".join(lines)
            command = [sys.executable, "-c", code]
            env = {"PYTHONPATH": source}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            return "IProgress" in done.stderr

        assert warned("import tqdm.auto")
        assert not warned("import knockgrid", "import tqdm.auto")
        assert not warned(
            "import knockgrid.display.progress as p",
            "with p.bar(2, ' cells', 'sweep', True) as bar: bar.update(2)",
        )

    def test_loading_the_demo_model_shows_no_bar(self, monkeypatch):
        from transformers.utils import logging

        from knockgrid.runs.job import quiet_loading

        before = logging.is_progress_bar_enabled()
        try:
            for isatty, model, wanted in (
                (True, "demo", False),
                (True, "gpt2", True),
                (False, "gpt2", False),
            ):
                logging.enable_progress_bar()
                monkeypatch.setattr("sys.stderr", Terminal(isatty))
                with quiet_loading(model):
                    assert logging.is_progress_bar_enabled() is wanted
                assert logging.is_progress_bar_enabled()
            logging.disable_progress_bar()
            with quiet_loading("demo"):
                pass
            assert not logging.is_progress_bar_enabled()
        finally:
            (logging.enable_progress_bar if before else logging.disable_progress_bar)()


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
