"""LAM in the tools that people use, each in an environment of its own.

`python tests/integrations/run.py [TOOL...]`; without names, all of them.

A script beside this file, TOOL_check.py or .mjs, shows and checks a tool. Its head (`# /// script`, PEP 723) names what
is installed: the tool first, with its version. It runs in a folder with the model folder `my-lam`, with its ONNX graph,
and with `expected.json`. What it found is a line of JSON for each way of loading LAM; see `golden.check`. Everything
lies in .venv/integrations. Environments are used again, with a new wheel of LAM if its code has changed; the model
folder is too, until .venv/integrations/work is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import tomllib

from lam_model.files import write_json

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent
END = "_check"  # of a script's name: under the tool's own name, Python would import it instead of the tool
PLACE = ROOT / ".venv" / "integrations"
WORK = PLACE / "work"
RESULTS = ROOT / "results" / "integrations.json"
TORCH = os.environ.get("TORCH", "torch==2.13.0")
HEAD = re.compile(r"^(?:#|//) /// script\n((?:(?:#|//).*\n)+?)(?:#|//) ///$", re.MULTILINE)


def main(names: list[str]) -> int:
    scripts = {path.stem.removesuffix(END): path for path in sorted(SCRIPTS.glob(f"*{END}.*"))}
    if unknown := sorted(set(names) - scripts.keys()):
        sys.exit(f"{', '.join(unknown)}: no such script; there are {', '.join(scripts)}")
    wheel = _prepare()
    failed = 0
    for name in names or scripts:
        requirements = _requirements(scripts[name])
        package, version = re.fullmatch(r"(@?[\w./-]+)(?:\[.*\])?(?:==|@)(.+)", requirements[0]).groups()
        try:
            ways = _run(name, scripts[name], requirements, wheel)
        except subprocess.CalledProcessError as error:
            failed += 1
            sys.stdout.write(f"FAILED  {name} {version}: {' '.join(map(str, error.cmd))}\n{error.output}\n")
            continue
        _record(name, {"package": package, "version": version, "requirements": requirements, "ways": ways})
        largest = max(max(way["short"], way["long"]) for way in ways)
        sys.stdout.write(f"ok  {name} {version}  max difference {largest:.0e}\n")
    return 1 if failed else 0


def _record(name: str, row: dict) -> None:
    """Put what a script has found into the file of results, in place of what it found before."""
    tools = json.loads(RESULTS.read_text(encoding="utf-8"))["tools"] if RESULTS.exists() else {}
    tools[name] = row
    write_json(RESULTS, {"command": "python tests/integrations/run.py", "tools": dict(sorted(tools.items()))})


def _prepare() -> Path:
    """Build the wheel; make the model folder and the expected vectors, unless they are there.

    Returns:
        The wheel. That of unchanged code has the same bytes.
    """
    python = Path(sys.executable)
    _call(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", PLACE / "dist", ROOT)
    if not (WORK / "expected.json").exists():
        _call(python.with_name("lam"), "export", "onnx", WORK / "my-lam", "--variant", "full")
        _call(python, SCRIPTS.parent / "others" / "expected.py", WORK / "my-lam", WORK / "expected.json")
    return max(PLACE.glob("dist/*.whl"), key=lambda path: path.stat().st_mtime)


def _requirements(script: Path) -> list[str]:
    (head,) = HEAD.findall(script.read_text(encoding="utf-8"))
    return tomllib.loads(re.sub(r"^(#|//) ?", "", head, flags=re.MULTILINE))["dependencies"]


def _run(name: str, script: Path, requirements: list[str], wheel: Path) -> list[dict]:
    """Run a script in its environment; return what it found."""
    place, node = PLACE / name, script.suffix == ".mjs"
    stamp, wanted = place / ".installed", f"{requirements} {hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        (_install_node if node else _install)(place, requirements, wheel)
        stamp.write_text(wanted)
    if node:  # packages are found beside a script
        (place / script.name).write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    command = ("node", place / script.name) if node else (place / "bin" / "python", script)
    lines = _call(*command, cwd=WORK, env=os.environ | {"HF_HUB_OFFLINE": "1"}).splitlines()
    ways = [json.loads(line) for line in lines if line.startswith('{"way"')]
    if not ways:
        raise subprocess.CalledProcessError(0, command, "it has compared nothing\n")
    return ways


def _install(place: Path, requirements: list[str], wheel: Path) -> None:
    if not (place / "bin" / "python").exists():
        _call(sys.executable, "-m", "venv", place)
    pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    if any(re.match(r"torch\b|lam-model\[", requirement) for requirement in requirements):
        _call(*pip, TORCH)
    if any(requirement.startswith("lam-model") for requirement in requirements):
        _call(*pip, "--no-deps", "--force-reinstall", wheel)
    _call(*pip, *requirements)


def _install_node(place: Path, requirements: list[str], wheel: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    _call("npm", "install", "--prefix", place, "--ignore-scripts", "--no-audit", "--no-fund", *requirements)


def _call(*command: object, **where: object) -> str:
    """Run a command and return its output; that of an error has everything it wrote."""
    output = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **where
    )
    output.check_returncode()
    return output.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
