"""Loads a built model folder in the oldest and newest libraries that are promised: `make compat`.

Each set is installed into a virtual environment of its own, where the folder must give its golden vectors, with the
package imported (no flag) and without it (`trust_remote_code=True`, from the folder alone).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from folders import build

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = (
    ("sentence-transformers==5.2.0", "transformers==4.57.6"),
    ("sentence-transformers<6",),
    ("sentence-transformers",),
)
TORCH = "torch==2.13.0"
# Arguments: the folder, and whether the package is to be imported.
CHECK = """
import json, sys
folder, imported = sys.argv[1], sys.argv[2] == "imported"
if imported:
    import lam_model
from sentence_transformers import SentenceTransformer, __version__
from transformers import __version__ as transformers_version
model = SentenceTransformer(folder, device="cpu", **({} if imported else {"trust_remote_code": True}))
assert imported == type(model[0].auto_model).__module__.startswith("lam_model"), type(model[0].auto_model)
golden = json.load(open(folder + "/manifest.json"))["golden"]
vectors = model.encode([g["text"] for g in golden]).tolist()
error = max(abs(a - b) for x, g in zip(vectors, golden) for a, b in zip(x, g["vector"]))
assert error < 1e-4, error
print(f"sentence-transformers {__version__}, transformers {transformers_version}, {sys.argv[2]}: within {error:.0e}")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = build(Path(temporary) / "lam")
        for number, libraries in enumerate(LIBRARIES):
            place = Path(temporary) / f"venv{number}"
            venv.create(place, with_pip=True)
            python = str(place / "bin" / "python")
            subprocess.run([python, "-m", "pip", "install", "-q", TORCH, "numba", "wrapt", *libraries], check=True)
            for how in ("imported", "not imported"):
                environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": temporary}
                environment["PYTHONPATH"] = str(REPOSITORY) if how == "imported" else ""
                subprocess.run([python, "-c", CHECK, str(folder), how], check=True, cwd=temporary, env=environment)


if __name__ == "__main__":
    sys.exit(main())
