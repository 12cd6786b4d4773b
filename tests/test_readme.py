"""README's and the card's snippets and commands, run as written; those of minutes are parsed by the command."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lam_model import cli, folder, load

ROOT = Path(__file__).parents[1]
README, CARD = ROOT / "README.md", ROOT / "model_card.md"
LONG = ("lam eval", "lam compare --held-out", "lam export", "lam mteb", "lam train", "lam publish", "lam build tuned")


def snippets(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(begin: str) -> list[str]:
    """Those of README's indented blocks, without comments."""
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        shlex.join(shlex.split(line, comments=True)) for line in re.findall(rf"^    ({begin} .*)", text, re.MULTILINE)
    ]
    return [line.replace("'&&'", "&&") for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where README's commands are run: beside its files, with the package's command and the Hub's org/lam at hand."""
    pytest.importorskip("lam_export")
    place = tmp_path_factory.mktemp("readme")
    for name in ("README.md", "model_card.md", "docs"):
        (place / name).symlink_to(ROOT / name)
    (place / "demo").mkdir()
    corpus = (ROOT / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (place / "demo" / "corpus.jsonl").write_text("".join(corpus[:20]), encoding="utf-8")
    load(backend="onnx")  # whoever follows README has exported the graphs by now: so has the cache
    my_lam, repository = place / "my-lam", place / "hub" / "models--org--lam"
    shutil.copytree(folder.cached()[0], my_lam)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(40 * "1")
    shutil.copytree(my_lam, repository / "snapshots" / (40 * "1"))
    return place


def run(place: Path, *command: str | Path, **options) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "HF_HUB_CACHE": str(place / "hub")}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", [README, CARD], ids=lambda path: path.name)
def test_snippets_run_one_after_another(place, path):
    code = snippets(path)
    assert len(code) >= 3
    run(place, sys.executable, "-c", "\n".join(code))


def test_a_folder_loads_by_its_own_code(place):
    """Where nobody imports the package, as in the card's second snippet."""
    (snippet,) = [code for code in snippets(CARD) if "trust_remote_code" in code]
    run(place, sys.executable, "-c", snippet + "import sys\nassert 'lam_model' not in sys.modules\nmodel.encode('a')\n")


def test_commands_of_seconds_run(place):
    short = [line for line in commands("lam") if not line.startswith((*LONG, "lam build my-lam"))]
    assert len(short) >= 8
    for line in short:
        assert run(place, line, shell=True) or "-o" in line


def test_a_folder_is_built_with_its_card(place, tmp_path):
    (line,) = [line for line in commands("lam build") if "&&" in line]
    shutil.copy(CARD, tmp_path)
    run(tmp_path, line, shell=True)
    assert (tmp_path / "my-lam" / "README.md").read_bytes() == CARD.read_bytes()


@pytest.mark.parametrize("line", [line for line in commands("lam") if line.startswith(LONG)])
def test_long_commands_are_ones(line, monkeypatch):
    class Parsed(Exception):  # noqa: N818
        pass

    def parse(parser, argv):
        parse_args(parser, argv)
        raise Parsed

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(Parsed):
        cli.main(shlex.split(line)[1:])


def test_targets_and_scripts_that_are_named_are_there():
    text = README.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^    make (\w+)|`make (\w+)`", text, re.MULTILINE)
    assert all(re.search(rf"^{a or b}:", makefile, re.MULTILINE) for a, b in targets)
    assert targets
    scripts = re.findall(r"(?:python|sh) ((?:benchmarks|results)/[\w./]+)", text)
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)
