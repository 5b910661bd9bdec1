"""Reports of two runs, and the files that a report may be written to."""

import errno
import json
import os
import re

import pytest
from test_report import Made, data_of, run_of, words_of
from typer.testing import CliRunner

from knockgrid.cli.app import app
from knockgrid.errors import InputError
from knockgrid.reports import compared as comparing
from knockgrid.reports.compared import differing, shared_prompts
from knockgrid.reports.opened import opened
from knockgrid.reports.write import report
from knockgrid.stats.contrast import difference

SAID = {i: f"Somebody said that city number {i} is the capital of" for i in range(6)}


@pytest.fixture
def a(tmp_path):
    return run_of(tmp_path / "a", n=4)


def test_two_runs_on_one_page(tmp_path):
    a, b = run_of(tmp_path / "a", n=6), run_of(tmp_path / "b", n=8, seed=3, unit="bits")
    told = {name: values for name, *values in differing(opened(a), opened(b))}
    assert told["seed"] == ["0", "3"]
    assert told["unit"] == ["nats", "bits"]
    assert not {"config_digest", "begun_by", "model.name"} & set(told)
    path = report(a, tmp_path / "pair.html", compare=b)
    text = path.read_text("utf-8")
    assert "A has 6, B 8, and 6 are in both" in text
    assert "The unit differs (nats and bits)" in text
    assert data_of(path)["refused"] == "The runs differ in unit, so nothing is subtracted."
    assert text.count("not drawn.") == 1
    assert "prompts" not in data_of(path)["runs"][0]
    empty = run_of(tmp_path / "empty", n=8, shards=0)
    assert "One of the runs has no rows" in words_of(report(a, compare=empty))


def test_prompts_of_one_id_and_other_texts_are_not_shared(tmp_path):
    a = run_of(tmp_path / "a", n=6)
    b = run_of(tmp_path / "b", n=6, texts={1: SAID[1], 4: SAID[4]})
    path = report(a, compare=b)
    text = words_of(path)
    assert "A has 6, B 6, and 4 are in both" in text
    assert "2 have the same id but another text or other spans (p001, p004)" in text
    assert data_of(path)["refused"] == ""
    assert "<svg" in path.read_text("utf-8")
    path = report(a, compare=run_of(tmp_path / "c", n=6, texts=SAID))
    assert data_of(path)["refused"] == "The runs share no prompt, so nothing is subtracted."
    assert "<svg" not in path.read_text("utf-8")
    assert "not drawn. The runs share no prompt" in words_of(path)
    assert "prompts differ" not in words_of(report(a, compare=a))


def test_prompts_of_other_spans_are_other_prompts():
    one = {"id": "a", "text": "Rome is", "spans": {"subject": [0, 4]}}
    other = {**one, "spans": {"subject": [0, 3]}}
    assert shared_prompts([one], [one]) == (["a"], [], False)
    assert shared_prompts([one], [other]) == ([], ["a"], True)


def test_the_figure_pairs_only_prompts_that_are_the_same(tmp_path, monkeypatch, a):
    seen = {}
    drawn = comparing.side_by_side

    def watched(tables, **more):
        seen.update(tables)
        return drawn(tables, **more)

    monkeypatch.setattr(comparing, "side_by_side", watched)
    report(a, compare=run_of(tmp_path / "b", n=4, texts={1: SAID[1]}, scale=3.0))
    apart = difference(seen["A"], seen["B"])
    first = apart[(apart["intervention"] == "subject") & (apart["layer"] == 0)]
    expected = sum(2 * Made(n=4).js(i, 0, 0) for i in (0, 2, 3)) / 3
    assert first["js"].item() == pytest.approx(expected)


def test_rows_of_one_name_and_other_edits_are_named(tmp_path, a):
    swap = ("subject", "patch resid_post", "corrupted_run(swap())", 3, "treatment", None)
    b = run_of(tmp_path / "b", n=4, rows=(swap, *Made().rows[1:]))
    text = words_of(report(a, compare=b))
    assert (
        "Rows of one name are other edits: subject (window: 1 and 3; source: "
        "corrupted_run(noise(3.0)) and corrupted_run(swap()); noise: " in text
    )
    assert "attention (" not in text
    assert "last (" not in text
    text = words_of(report(a, compare=run_of(tmp_path / "c", n=4, sigma=0.2)))
    assert "subject (noise: subject 0.1 and subject 0.2)" in text
    assert "last (noise: " in text
    assert "attention (" not in text
    assert "Rows of one name" not in words_of(report(a, compare=a))


def test_the_compared_figure_is_of_a_shared_metric_and_the_first_token(tmp_path):
    a = run_of(tmp_path / "a", n=4, tokens=2)
    b = run_of(tmp_path / "b", n=4, tokens=3, metrics=("tv", "kl"))
    c = run_of(tmp_path / "c", n=4, metrics=("rank_clean",))
    d = run_of(tmp_path / "d", n=4, metrics=("tv",))
    text = words_of(report(a, compare=b))
    assert "not drawn" not in text
    assert "Both runs and their difference: KL divergence" in text
    assert "first token after the prompt" in text
    text = words_of(report(d, compare=b))
    assert "Both runs and their difference: total variation" in text
    path = report(c, compare=d)
    assert data_of(path)["refused"] == "The runs share no metric, so nothing is subtracted."
    assert "first token after" not in words_of(report(c, compare=c))


def test_where_no_report_can_be_written(tmp_path, monkeypatch, a):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("<title>My notes on knockgrid report</title>", "utf-8")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    refused = {
        tmp_path / "folder": "folder: it is a folder; name a file in it, as .*report.html",
        "-": "'-': a report is one file that a browser opens; name one, as report.html",
        tmp_path / "mine.html": "mine.html: it is there and is no report of knockgrid",
        tmp_path / "empty": "empty: it is there and is no report",
        tmp_path / "mine.html" / "x.html": "x.html: .*mine.html is a file, not a folder",
        tmp_path / ("long" * 80): "longlong.*: .*name too long",
        "nul\0.html": "nul.*: .*null",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused[tmp_path / "pipe"] = "pipe: it is no ordinary file"
    before = sorted(tmp_path.rglob("*"))
    for out, why in refused.items():
        with pytest.raises(InputError, match=f"the report cannot be written to .*{why}"):
            report(a, out)
    assert sorted(tmp_path.rglob("*")) == before
    assert "My notes" in (tmp_path / "mine.html").read_text("utf-8")
    own = a / "report.html"
    own.write_text("mine", "utf-8")
    for more in ({}, {"out": own, "compare": a}):
        with pytest.raises(InputError, match="no report of knockgrid"):
            report(a, **more)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, a):
    old = report(a, tmp_path / "x.html").read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written to .*x.html: No space left"):
        report(a, tmp_path / "x.html")
    assert (tmp_path / "x.html").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "x.html"]


def test_a_report_is_written_again(tmp_path, a):
    """Also over one of another version, a comparison, and by a link; folders are made."""
    out = report(a, tmp_path / "new" / "folder" / "x.html")
    out.write_text(re.sub('content="knockgrid [^"]*"', 'content="knockgrid 9.9"', out.read_text()))
    assert report(a, out, compare=a) == out
    assert report(a, out) == out
    assert "knockgrid 9.9" not in out.read_text("utf-8")


def test_the_command(tmp_path, a):
    def run(*given):
        done = CliRunner().invoke(app, ["report", *map(str, given)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    assert run(a) == str(a / "report.html")
    out = tmp_path / "new" / "x.html"
    assert run(a, "--out", out) == str(out)
    assert out.is_file()
    pair = str(a / "report_compare.html")
    assert run("--compare", a, a) == pair
    assert json.loads(run("--compare", a, a, "--json")) == {"written": [pair]}
    for given in ((), ("--compare", a, a, a)):
        with pytest.raises(InputError, match="give one run folder, or two with --compare"):
            run(*given)


def test_what_is_refused(tmp_path, a):
    with pytest.raises(InputError, match="holds no run"):
        report(tmp_path)
    (a / "tokens.json").write_text("[1]")
    with pytest.raises(InputError, match="tokens.json is damaged"):
        report(a)
    (a / "tokens.json").unlink()
    assert data_of(report(a))["words"]["texts"][0].startswith(" word")
    prompts, shard = a / "prompts.parquet", a / "shards" / "00000.parquet"
    kept = prompts.read_bytes()
    prompts.unlink()
    said = r"a is damaged \(prompts.parquet is not there\); the command that made the run"
    with pytest.raises(InputError, match=said):
        report(a)
    prompts.write_bytes(kept)
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged"):
        report(a)
    manifest = json.loads((a / "manifest.json").read_text("utf-8"))
    (a / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}), "utf-8")
    with pytest.raises(InputError, match="install knockgrid 0.1.0 or newer"):
        report(a)
