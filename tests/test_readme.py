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
    return [re.sub(r"\s+#.*", "", line) for line in re.findall(rf"^    ({begin} .*)", text, re.MULTILINE)]


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


def test_snippets_of_the_readme_run_one_after_another(place, monkeypatch):
    monkeypatch.chdir(place)
    code = snippets(README)
    assert len(code) >= 5
    names: dict[str, object] = {}
    for snippet in code:
        exec(snippet, names)


def test_snippets_of_the_card_run(place):
    """First the one of the folder's own code, where nobody has imported the package."""
    code = sorted(snippets(CARD), key=lambda snippet: "trust_remote_code" not in snippet)
    code.insert(1, "import sys\nassert 'lam_model' not in sys.modules\n")
    assert len(code) == 4
    environment = os.environ | {"HF_HUB_CACHE": str(place / "hub")}
    done = subprocess.run([sys.executable, "-c", "".join(code)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_of_seconds_run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    short = [line for line in commands("lam") if not line.startswith((*LONG, "lam build my-lam"))]
    assert len(short) >= 8
    for line in short:
        assert cli.main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out or "-o" in line


def test_a_folder_is_built_with_its_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CARD, tmp_path)
    build, copy = next(line for line in commands("lam build") if "&&" in line).split(" && ")
    assert cli.main(shlex.split(build)[1:]) == 0
    subprocess.run(shlex.split(copy), check=True)
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
