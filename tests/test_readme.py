"""Snippets and commands of README, the docs and the card, run as written; those of minutes are only parsed."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lam_model import cli

ROOT = Path(__file__).parents[1]
CARD = ROOT / "model_card.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LONG = (
    *("lam eval", "lam compare --held-out", "lam export", "lam mteb", "lam train", "lam publish"),
    *("lam build tuned", "lam build OUT"),
)
BUILT = "lam build my-lam"  # once, with its card


def snippets(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(*begin: str) -> list[str]:
    """Those of all pages that begin so, each once and without its comment."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [re.sub(r"(^|\s+)#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in dict.fromkeys(lines) if line and line.startswith(begin)]


class Parsed(Exception):  # noqa: N818
    pass


@pytest.fixture
def only_parse(monkeypatch):
    """Commands end as soon as their arguments were parsed."""

    def parse(parser, args=None, namespace=None):
        parse_args(parser, args, namespace)
        raise Parsed

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where commands are run: beside the pages, with the package's command and the Hub's org/lam at hand."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("README.md", "model_card.md", "docs"):
        (place / name).symlink_to(ROOT / name)
    (place / "demo").mkdir()
    corpus = (ROOT / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (place / "demo" / "corpus.jsonl").write_text("".join([corpus[0], *corpus[-10:]]), encoding="utf-8")
    my_lam, repository = place / "my-lam", place / "hub" / "models--org--lam"
    assert cli.main(["build", str(my_lam)]) == 0
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(40 * "1")
    shutil.copytree(my_lam, repository / "snapshots" / (40 * "1"))
    return place


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.stem)
def test_snippets_of_a_page_run_one_after_another(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    for snippet in snippets(page):
        exec(snippet, names)


def test_snippets_of_the_card_run(place):
    """The one of the folder's own code as where the package is not installed."""
    own, others = ([s for s in snippets(CARD) if ("trust_remote_code" in s) is which] for which in (True, False))
    assert (len(own), len(others)) == (1, 2)
    environment = os.environ | {"HF_HUB_CACHE": str(place / "hub")}
    for code in (["import sys\nsys.modules['lam_model'] = None\n", *own], others):
        done = subprocess.run([sys.executable, "-c", "".join(code)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in commands("lam ") if not line.startswith((*LONG, BUILT))])
def test_commands_of_seconds_run(line, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert cli.main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out or "-o" in line


def test_a_folder_is_built_with_its_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CARD, tmp_path)
    build, copy = next(line for line in commands(BUILT) if "&&" in line).split(" && ")
    assert cli.main(shlex.split(build)[1:]) == 0
    subprocess.run(shlex.split(copy), check=True)
    assert (tmp_path / "my-lam" / "README.md").read_bytes() == CARD.read_bytes()


@pytest.mark.parametrize("line", commands(*LONG))
def test_long_commands_are_ones(line, only_parse):
    with pytest.raises(Parsed):
        cli.main(shlex.split(line)[1:])


@pytest.mark.parametrize("line", commands("python benchmarks/"))
def test_benchmarks_take_their_arguments(line, only_parse, monkeypatch):
    script, *arguments = shlex.split(line)[1:]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_targets_scripts_and_extras_that_are_named_are_there():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    makefile, project = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "pyproject.toml"))
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in re.findall(r"(?:python|sh) ((?:benchmarks|results)/[\w./]+)", text):
        assert (ROOT / script).is_file(), script
    for extra in re.findall(r"pip install .*\[(\w+)\]", text):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_every_command_is_of_a_kind_that_is_tested():
    others = (
        "make ",
        "pip install ",
        "DO_NOT_TRACK=1 infinity_emb ",
        "accelerate launch ",
        "torchrun ",
        "pre-commit install",
        "mteb run ",
        ".venv/bin/python -m pytest tests/",
    )
    assert [line for line in commands("") if not line.startswith(("lam ", "python ", "sh ", *others))] == []
