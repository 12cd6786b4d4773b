"""The figures of the pages and the card are those that the commands measured, of the weights that are packaged."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lam_model.evaluation.scores import OFFICIAL
from lam_model.folder.base import sha256
from lam_model.folder.build import PACKAGED_WEIGHTS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    return importlib.import_module("tables")


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    return importlib.import_module("measure")


@pytest.fixture
def three_figures(measure, tmp_path, monkeypatch):
    """A repository of three files to measure, one of which is up to date; `made.txt` says what was run."""
    (tmp_path / "results").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "results" / "a.json").write_text(json.dumps({"deltanet_sha256": sha256(PACKAGED_WEIGHTS)}))
    (tmp_path / "results" / "b.json").write_text(json.dumps({"deltanet_sha256": 64 * "0"}))
    (tmp_path / "results" / "tables.py").write_text("open('made.txt', 'a').write('tables ')")
    (tmp_path / "make.py").write_text("import sys; open('made.txt', 'a').write(' '.join(sys.argv[1:]) + ' ')")
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    commands = {f"{name}.json": f"python make.py DATA/{name}" for name in "abc"}
    monkeypatch.setattr(measure, "FIGURES", tuple(measure.Figures(*row, 5) for row in commands.items()))
    return tmp_path


def test_the_pages_have_the_figures_of_results(tables):
    for page, text in tables.filled().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run `python results/tables.py`"


def test_the_model_card_has_the_figures_of_results(tables):
    assert (ROOT / "model_card.md").read_text(encoding="utf-8") == tables.model_card()


def test_the_model_card_has_what_the_hub_reads():
    card = ModelCard.load(ROOT / "model_card.md")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert {"mteb", "sentence-transformers"} <= set(card.data.tags)
    tasks = json.loads((ROOT / "results" / "eval.json").read_text(encoding="utf-8"))["tasks"]
    assert {result.dataset_name for result in card.data.eval_results} == {f"MTEB {task}" for task in tasks}
    assert all(0 < result.metric_value < 100 for result in card.data.eval_results)


def test_no_command_names_a_path_of_a_machine():
    files = sorted((ROOT / "results").rglob("*.json"))
    commands = [re.findall(r'"command": "(.*)"', file.read_text(encoding="utf-8")) for file in files]
    assert any(commands)
    for file, some in zip(files, commands, strict=True):
        assert not [word for command in some for word in command.split() if word.startswith("/")], file


@pytest.mark.parametrize("name", ["compare.json", "eval.json", "context.json"])
def test_the_figures_are_of_the_packaged_weights(name):
    figures = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
    assert figures["deltanet_sha256"] == sha256(PACKAGED_WEIGHTS)


def test_figures_of_earlier_weights_say_so(tables, monkeypatch):
    monkeypatch.setattr(tables, "sha256", lambda _: "other")
    for name, text in tables.blocks().items():
        marked = "weights before the packaged ones" in text
        assert marked == (
            name in tables.MAY_BE_EARLIER and "deltanet_sha256" in tables.read(tables.MAY_BE_EARLIER[name])
        )


def test_the_row_of_the_base_gives_the_official_figures():
    scores = json.loads((ROOT / "results" / "eval.json").read_text(encoding="utf-8"))["scores"]
    for task, score in scores["MiniLM, 256 tokens"].items():
        assert score == pytest.approx(OFFICIAL[task], abs=0.3)


def test_the_packaged_weights_are_small_and_float16():
    from safetensors.torch import load_file

    assert PACKAGED_WEIGHTS.stat().st_size < 8_000_000
    assert all(str(t.dtype) == "torch.float16" for t in load_file(PACKAGED_WEIGHTS).values())


def test_every_file_of_the_packaged_weights_has_its_command(tables, measure, monkeypatch):
    names = set()

    def read(name):
        names.add(name)
        return figures(name)

    figures = tables.read
    monkeypatch.setattr(tables, "read", read)
    tables.blocks()
    tables.model_card()
    assert {name for name in names if not name.startswith(("tune/", "distill/", "context/"))} == {
        one.file for one in measure.FIGURES
    }


def test_commands_of_figures_are_those_of_the_docs(measure):
    """Which tests/test_readme.py parses."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    lines = [re.sub(r"\s+", " ", line) for line in text.replace("\\\n", " ").splitlines()]
    for one in measure.FIGURES:
        assert one.command in lines
        assert one.command.endswith(f" -o results/{one.file}")


def test_a_dry_run_prints_the_plan(measure, three_figures, capsys):
    measure.main(["--dry-run"])
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "up to date: a.json"
    assert "2 files, 10 minutes" in out
    assert all(f"5 min  python make.py DATA/{name}\n" in out for name in "bc")
    assert not (three_figures / "made.txt").exists()


def test_what_is_not_up_to_date_is_measured(measure, three_figures):
    (three_figures / "results" / "a.json.unfinished").touch()
    measure.main(["--data", str(three_figures / "data")])
    assert (three_figures / "made.txt").read_text() == "DATA/a DATA/b DATA/c tables "
    assert sorted(path.name for path in three_figures.rglob("*") if "DATA" in path.name or ".unf" in path.name) == []


def test_measuring_stops_at_what_fails(measure, three_figures):
    (three_figures / "make.py").write_text("assert 'b' not in __import__('sys').argv[1]")
    with pytest.raises(SystemExit, match=r"b\.json was not measured"):
        measure.main(["--data", str(three_figures / "data")])
    assert [path.name for path in (three_figures / "results").glob("*.unfinished")] == ["b.json.unfinished"]
    assert not (three_figures / "DATA").is_symlink()
