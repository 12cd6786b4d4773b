"""Runs transformers' and sentence-transformers' own tests on a tiny LAM: `make peers`.

They come from source distributions, which are fetched into the folder that is given: transformers' from that of the
installed version, sentence-transformers' from that of 5.2.0, the newest that has tests of models, which run with the
libraries of that time. A few of them want the Hub: they run on a BERT of the same sizes first, and what fails there is
left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RELEASE = "5.2.0"
LIBRARIES = (
    f"sentence-transformers=={RELEASE}",
    "transformers==4.57.6",
    "datasets==4.0.0",
    "huggingface-hub==0.36.2",
    "tokenizers==0.22.2",
)
# The others are of other models, of OpenVINO, want files from its website, or start processes for minutes.
FILES = ("sentence_transformer", "trainer", "cmnrl")


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    transformers = fetch("transformers", version("transformers"), folder)
    sentence_transformers = fetch("sentence-transformers", RELEASE, folder)
    libraries = install(folder / "libraries")
    files = [sentence_transformers / "tests" / f"test_{name}.py" for name in FILES]
    codes = [run([transformers], "plugin_transformers", [HERE / "suite_transformers.py"])]
    for model in ("bert", "lam"):
        paths = [sentence_transformers, libraries]
        codes.append(run(paths, "plugin_sentence_transformers", files, PEERS_MODEL=model))
    return codes[0] or codes[2]


def fetch(name: str, release: str, folder: Path) -> Path:
    """A folder with `tests` of the source distribution of a release."""
    unpacked = folder / f"{name.replace('-', '_')}-{release}"
    if not unpacked.is_dir():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*download, "--dest", folder, f"{name}=={release}"], check=True)
        with tarfile.open(f"{unpacked}.tar.gz") as archive:
            tests = [one for one in archive if one.name.startswith(f"{unpacked.name}/tests/")]
            archive.extractall(folder, tests, filter="data")
    return unpacked


def install(folder: Path) -> Path:
    """A folder of `LIBRARIES` that is to go before the installed ones."""
    if not folder.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*pip, *LIBRARIES], check=True)
    return folder


def run(paths: list[Path], plugin: str, files: list[Path], **more: str) -> int:
    """The exit code of pytest; `tests`, as these files import it, is the folder of the source distribution."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [HERE, *paths])),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(paths[0] / "hub"),
        "CI": "1",  # which has the tests left out that train for minutes
        **more,
    }
    options = ["-q", "-rxX", "--tb=short", "-W", "ignore", "-p", "accepted", "-p", plugin]
    options += ["-c", os.devnull, "--rootdir", str(paths[0]), "--noconftest"]
    return subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=paths[0], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
