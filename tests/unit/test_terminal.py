"""What a terminal sees: completion, colours, widths, bars."""

import inspect
import io
import re
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest
from shell import run, saved, sweep

from knockgrid import spec
from knockgrid.cli import app as cli
from knockgrid.cli import check_model, values
from knockgrid.display import progress, terminal
from knockgrid.edits import knockout, patch
from knockgrid.engine import executors

SCRIPT = Path(sys.executable).with_name("knockgrid")
SOURCE = str(Path(cli.__file__).parents[2])


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    return saved(tmp_path_factory.mktemp("terminal"), tiny_tokenizer)


def shell(shell_name, line):
    """What a shell is offered for a line, with the cursor at its end; and the processor seconds."""
    given = {
        "_KNOCKGRID_COMPLETE": f"complete_{shell_name}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "PATH": str(SCRIPT.parent),
        "PYTHONPATH": SOURCE,
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
        from knockgrid.prompts import facts
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
        assert set(lists["source"]) > {"noise:1", "noise", "swap", "zero", "mean_activation"}
        assert "donor" not in lists["source"]  # it needs a prompt
        assert {*spec.allowed("executor"), "free_run"} == {"auto", *executors.__all__}
        assert set(_layers.RULES) < set(lists["window"])
        relations = values.relations()
        assert len(relations) == 34
        assert relations == tuple(dict.fromkeys(p.relation for p in facts()))
        names = {name for c in cli.COMMANDS for name in inspect.signature(c).parameters}
        assert set(lists) <= names  # each belongs to an option

    @pytest.mark.parametrize("option", ["mode", "more", "form", "source", "window", "layers"])
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
            made = Spec(interventions=rows, metrics=["js"], **own)
            rows = [one for one in treatments_of(made) if one.source or "denoising" not in value]
            set_up(tiny_llama, prompts[:1], rows, made)

    def test_bash_is_offered_commands(self):
        assert set(shell("bash", "knockgrid ")[0].split()) == {c.__name__ for c in cli.COMMANDS}
        assert "--help" in shell("bash", "knockgrid swep --")[0].split()  # and no error

    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("sw", "sweep"),
            ("sweep --so", "--source"),
            ("sweep --source s", "swap"),
            ("sweep --row ", "subject attention last"),
            ("facts --relation country_l", "country_language"),
            ("reproduce paths err", "error_detection"),
        ],
    )
    def test_bash(self, line, offered):
        assert shell("bash", f"knockgrid {line}")[0].split() == offered.split()

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
        env = {"PATH": f"{SCRIPT.parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": SOURCE}
        command = ["bash", "--norc", "-c", script]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
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
        subprocess.run([sys.executable, "-c", loaded], env={"PYTHONPATH": SOURCE}, check=True)


class Terminal(io.StringIO):
    def __init__(self, isatty=True):
        super().__init__()
        self.is_one = isatty

    def isatty(self):
        return self.is_one


class TestColoursAndWidth:
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
        kinds = [knockout(window=1), patch("attn_outt", "subject")]
        monkeypatch.setattr(check_model, "kinds", lambda: kinds)
        _, plain, _ = run(capsys, "check", folder / "model")
        assert "\x1b" not in plain
        _, first, second = plain.splitlines()
        assert first.index("staircase") == second.index("refused")  # aligned
        monkeypatch.setenv("FORCE_COLOR", "1")
        _, coloured, _ = run(capsys, "check", folder / "model")
        assert "\x1b[32mstaircase\x1b[0m" in coloured
        assert "\x1b[31mrefused\x1b[0m" in coloured
        assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
        monkeypatch.setenv("NO_COLOR", "1")
        assert run(capsys, "check", folder / "model")[1] == plain

    def test_width(self, monkeypatch):
        assert terminal.width() is None  # a pipe
        for given, wanted in {"44": 44, "": None, "0": None, "wide": None, "-3": None}.items():
            monkeypatch.setenv("COLUMNS", given)
            assert terminal.width() == wanted

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
        assert len({re.match(r" *\d+  \w+ +", line).end() for line in wide.splitlines()[:-1]}) == 1
        monkeypatch.setenv("COLUMNS", "40")
        _, narrow, _ = run(capsys, "facts")
        assert max(map(len, narrow.splitlines())) <= 40
        assert narrow.split() == wide.split()

    def test_written_paths_stand_alone(self, capsys, folder, tmp_path, monkeypatch):
        monkeypatch.setattr("knockgrid.reports.draw.draw", lambda *_, **__: [])
        monkeypatch.setenv("COLUMNS", "40")
        _, printed, _ = sweep(capsys, folder, tmp_path / "a run", "--layers", 0)
        assert str(tmp_path / "a run" / "manifest.json") in printed.splitlines()


class TestProgress:
    @pytest.mark.parametrize(
        ("isatty", "shell", "asked", "wanted"),
        [
            (False, None, True, False),
            (True, None, True, True),
            (True, None, False, False),
            (False, types.SimpleNamespace(kernel=1), True, True),  # a notebook
            (False, types.SimpleNamespace(), True, False),
        ],
    )
    def test_where_it_is_shown(self, monkeypatch, isatty, shell, asked, wanted):
        monkeypatch.setattr("sys.stderr", Terminal(isatty))
        ipython = types.SimpleNamespace(get_ipython=lambda: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        with progress.bar(3, " cells", "sweep", asked) as bar:
            assert (not bar.disable and bar.delay == 0) is wanted

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
        clock = types.SimpleNamespace(now=0.0)
        stream = Terminal(False)
        monkeypatch.setattr("sys.stderr", stream)
        with progress.bar(398, " cells", "sweep", True) as bar:
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

    @pytest.mark.parametrize(
        ("lines", "warned"),
        [
            ("import tqdm.auto", True),
            ("import knockgrid, tqdm.auto", False),
            (
                "import knockgrid.display.progress as p\n"
                "with p.bar(2, ' cells', 'sweep', True) as bar: bar.update(2)",
                False,
            ),
        ],
    )
    def test_a_notebook_without_widgets_is_not_warned(self, lines, warned):
        """tqdm warns once, when it is first imported in a notebook that has no `ipywidgets`."""
        kernel = (
            "import sys, types\n"
            "shell = types.SimpleNamespace(config={'IPKernelApp': 1}, kernel=1)\n"
            "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
            "sys.modules['ipykernel'] = types.ModuleType('ipykernel')\n"
            "sys.modules['ipykernel.zmqshell'] = types.ModuleType('ipykernel.zmqshell')\n"
            "sys.modules['ipywidgets'] = None\n"
        )
        command, env = [sys.executable, "-c", kernel + lines], {"PYTHONPATH": SOURCE}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert ("IProgress" in done.stderr) is warned

    @pytest.mark.parametrize(
        ("isatty", "model", "before", "inside"),
        [
            (True, "demo", True, False),
            (True, "gpt2", True, True),
            (False, "gpt2", True, False),
            (True, "demo", False, False),
        ],
    )
    def test_loading_the_demo_model_shows_no_bar(self, monkeypatch, isatty, model, before, inside):
        from transformers.utils import logging

        from knockgrid.runs.job import quiet_loading

        switch = {True: logging.enable_progress_bar, False: logging.disable_progress_bar}
        kept = logging.is_progress_bar_enabled()
        monkeypatch.setattr("sys.stderr", Terminal(isatty))
        try:
            switch[before]()
            with quiet_loading(model):
                assert logging.is_progress_bar_enabled() is inside
            assert logging.is_progress_bar_enabled() is before
        finally:
            switch[kept]()
