"""What the command line promises to scripts: JSON, exit codes, one line for what went wrong."""

import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shell import run, saved, sweep

import knockgrid as kg
from knockgrid import InputError
from knockgrid.cli import app as cli
from knockgrid.cli import check_model
from knockgrid.engine.memory import TooLittleMemory
from knockgrid.runs.interrupt import Stopped
from knockgrid.spec import FIELDS

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("knockgrid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    return saved(tmp_path_factory.mktemp("command_line"), tiny_tokenizer)


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures that take no time, drawn by something that talks on standard output."""

    def draw(table, folder, *, kind="layer_heatmap", metric="js", by=None):
        print("a library talks")
        return (folder / f"{kind}_{metric}.svg",)

    monkeypatch.setattr("knockgrid.reports.draw.draw", draw)


@pytest.fixture
def document(capsys):
    """The document that a command prints."""

    def ask(*arguments, wanted=0):
        code, printed, said = run(capsys, *arguments, "--json")
        assert code == wanted, said
        return json.loads(printed)

    return ask


OWN_LAYERS = [
    {"kind": "knockout", "layers": "all"},
    {"kind": "joint", "name": "both", "members": [
        {"kind": "knockout", "layers": {"kind": "all_but", "layers": [0]},
         "pairs": {"kind": "farther_than", "tokens": 0}},
        {"kind": "patch", "act_name": "mlp_out", "pos": "subject", "source": "zero", "layers": [1]},
    ]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("interventions", "drawn"),
    [
        (OWN_LAYERS, []),
        ([*OWN_LAYERS, {"kind": "knockout", "window": 1, "name": "cut"}], ["token_heatmap_cut_kl"]),
    ],
    ids=["no layers", "some layers"],
)
def test_a_study_of_a_continuation_and_layers_of_its_own(
    capsys, folder, tmp_path, interventions, drawn
):
    prompt = {"text": "The capital of Italy is", "subject": "Italy", "continuation": " Rome."}
    study = {"model": str(folder / "model"), "prompts": [prompt], "interventions": interventions}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    code, printed, said = run(capsys, "sweep", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert code == 0, said
    assert ("there is no figure over layers" in said) == (not drawn)
    names = {Path(line).stem for line in printed.splitlines() if "figures" in line}
    assert names == set(drawn), printed
    table = kg.open_run(tmp_path / "run")
    assert "".join(table[table.intervention == "both"].token_text) == " Rome."


class TestJson:
    def test_every_command_has_it(self):
        parameters = [inspect.signature(command).parameters for command in cli.COMMANDS]
        assert all("as_json" in one for one in parameters)

    def test_a_run_from_its_sweep_to_its_export(
        self, capsys, folder, tmp_path, no_pictures, document
    ):
        out, target, rows = tmp_path / "run", tmp_path / "rows.csv", 2 * 3 * 3
        code, printed, said = sweep(capsys, folder, out, "--json")
        assert code == 0, said
        assert "a library talks" in said
        pictures = [str(out / f"{kind}_js.svg") for kind in ("layer_heatmap", "layer_curve")]
        assert json.loads(printed) == {
            "run": str(out),
            **{"finished": True, "rows": rows, "prompts": 2, "without_value": 0, "dropped": {}},
            "executor": "staircase",
            "written": [str(out / "manifest.json"), *pictures],
        }
        found = document("figure", out, "--kind", "layer_curve", "--metric", "kl")
        same = {"run": str(out), "kind": "layer_curve", "metric": "kl"}
        assert found == {**same, "written": [str(out / "layer_curve_kl.svg")]}
        assert document("verify", out, "--cells", 2)["ok"] is True
        found = document("export", out, "--out", target)
        assert (found["rows"], found["written"]) == (rows, [str(target)])
        assert len(pd.read_csv(target)) == rows
        found = document("compact", out)
        assert (found["rows"], found["written"]) == (rows, [str(out / "table.parquet")])

    @pytest.mark.filterwarnings("ignore:.*is not finished")
    def test_a_part_of_a_run_is_not_finished(self, capsys, folder, tmp_path, no_pictures):
        more = ("--set", "batch=1", "--shard", "1/2", "--json")
        code, printed, said = sweep(capsys, folder, tmp_path / "run", *more)
        assert code == 0, said
        found = json.loads(printed)
        assert (found["finished"], found["rows"], found["prompts"]) == (False, 9, 1)
        assert "written" not in found

    def test_a_dry_run(self, capsys, folder, tmp_path):
        _, printed, _ = sweep(capsys, folder, tmp_path / "run", "--dry-run", "--json")
        found = json.loads(printed)
        assert (found["prompts"], found["cells"]) == (2, 18)
        assert found["seconds"] > 0
        assert found["memory"] > found["weights"] > 0
        assert not (tmp_path / "run").exists()

    def test_check(self, document, folder, monkeypatch):
        kinds = [kg.knockout(window=1), kg.patch("attn_outt", "subject")]
        monkeypatch.setattr(check_model, "kinds", lambda: kinds)
        found = document("check", folder / "model")
        assert (found["n_layers"], found["architecture"]) == (3, "LlamaForCausalLM")
        good, bad = found["kinds"]
        assert (good["kind"], good["executor"], good["refused"]) == ("knockout", "staircase", None)
        assert good["max_difference"] < 1e-5
        assert "attn_outt" in bad["refused"]

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

    def test_reproduce_and_evidence(self, document, tmp_path, monkeypatch):
        def made(study, load, settings, own):
            print("a library talks")
            yield own / "table.parquet"

        def found(spec, out):
            frame = pd.DataFrame({"outcome": ["confirmed", "failed", "confirmed"]})
            frame.attrs = {"knockgrid": {"unit": "nats"}}
            yield kg.runs.write_table(frame, out / "claims.parquet")

        monkeypatch.setattr("knockgrid.cli.reproduce.reproduce", made)
        monkeypatch.setattr("knockgrid.reports.evidence.evidence", found)
        names, out = ["heads", "paths"], str(tmp_path)
        tables = [str(tmp_path / name / "table.parquet") for name in names]
        same = {"out": out, "studies": names, "quick": True}
        assert document("reproduce", *names, "--out", out, "--quick") == {**same, "written": tables}
        claims = {"confirmed": 2, "failed": 1}
        written = [str(tmp_path / "claims.parquet")]
        assert document("evidence", "--out", out) == {
            **{"out": out, "claims": claims, "written": written}
        }

    def test_a_command_that_fails_prints_none(self, capsys, folder, tmp_path):
        code, printed, said = sweep(capsys, folder, tmp_path / "run", "--json", "--layers", 9)
        assert (code, printed) == (2, "")
        assert said.splitlines()[-1].startswith("knockgrid: layer 9 is out of range")


def codes_in(text):
    """Exit codes that a text lists, one or more a line before their meaning."""
    found = re.findall(r"^\W*(\d+(?:, \d+)*)(?: \||  +)", text, re.M)
    return {int(code) for group in found for code in group.split(", ")}


CODES = {0, 1, 2, 3, 4, 130, 141, 143}
NO_MEMORY = TooLittleMemory("prompts of 9 tokens")
STOPPED = "stopped; the same command goes on with a run that was begun"
FAILED = kg.runs.PromptsFailed({"rome": "OSError: planted"}, "here")


class TestExitCodes:
    def test_141_a_reader_that_has_seen_enough(self):
        """As `head` does: more output than a pipe holds, of which one line is read."""
        command = [str(SCRIPT), "facts", "--jsonl"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
            assert process.stdout.readline().startswith(b"{")
            process.stdout.close()
            said = process.stderr.read()
        assert (process.wait(timeout=60), said) == (141, b"")

    def test_help_and_pages_list_them_all(self, capsys):
        code, printed, _ = run(capsys, "--help")
        assert code == 0
        assert codes_in(printed[printed.index("Exit codes") :]) == CODES
        for page in ("runs.md", "command_line.md"):
            assert codes_in((ROOT / "docs" / page).read_text("utf-8")) == CODES

    @pytest.fixture
    def failing(self, capsys, monkeypatch, folder, tmp_path):
        """What is said of a sweep that raises an error."""

        def fail(error):
            def raised(*_, **__):
                raise error

            monkeypatch.setattr("knockgrid.runs.running.run", raised)
            return sweep(capsys, folder, tmp_path / "run")

        return fail

    @pytest.mark.parametrize(
        ("error", "code", "says"),
        [
            (FAILED, 3, str(FAILED)),
            (NO_MEMORY, 4, str(NO_MEMORY)),
            (Stopped("stopped after 1 of 2", 2), 130, "stopped after 1 of 2"),
            (Stopped("stopped after 1 of 2", 15), 143, "stopped after 1 of 2"),
            (KeyboardInterrupt(), 130, STOPPED),
        ],
    )
    def test_of_an_error(self, failing, error, code, says):
        assert failing(error) == (code, "", f"knockgrid: {says}\n")

    def test_an_error_of_the_program_is_not_hidden(self, failing):
        with pytest.raises(ZeroDivisionError):
            failing(ZeroDivisionError())

    def test_1_a_run_that_does_not_hold(self, capsys, folder, tmp_path, no_pictures, document):
        sweep(capsys, folder, tmp_path / "run")
        (shard,) = (tmp_path / "run" / "shards").glob("*.parquet")
        rows = pq.read_table(shard)
        changed = rows.set_column(rows.column_names.index("js"), "js", pc.add(rows["js"], 0.1))
        pq.write_table(changed.replace_schema_metadata(rows.schema.metadata), shard)
        assert document("verify", tmp_path / "run", "--cells", 1, wanted=1)["ok"] is False

    def test_version_and_help(self, capsys):
        assert run(capsys, "--version") == (0, f"knockgrid {version('knockgrid')}\n", "")
        assert run(capsys, "-h") == run(capsys, "--help")
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
            (["sweep", "--relatoin", "x"], "no such option '--relatoin' of knockgrid sweep; did"),
            (["sweep", "--no-noise-flor"], "'--no-noise-floor'? All are in knockgrid sweep --help"),
            (["verify", "--cels=3", "x"], "no such option '--cels' of knockgrid verify; did you"),
            (["--hlep"], "no such option '--hlep' of knockgrid; did you mean '--help'?"),
            (["verify"], "missing argument 'RUN'; see knockgrid verify --help"),
            (["verify", "a", "b"], "unexpected extra argument"),
            (["verify", "a", "--cells", "x"], "'--cells'"),
            (["facts", "--relation"], "'--relation' requires an argument"),
            (["facts", "--relation", "country_langage"], "did you mean 'country_language'?"),
            (["figure", "--kind", "curv", "nowhere"], "holds no run"),
            (["export", "x"], "missing option '--out'"),
            (["report", "--compare", "x"], "'--compare' requires 2 arguments; see knockgrid"),
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
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(InputError, match="hf:some/facts:test needs the package datasets"):
            list(kg.read_prompts("hf:some/facts:test"))
