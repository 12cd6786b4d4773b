"""LAM is known wherever it is installed: no import and no flag is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from folders import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_base, tiny_weights):
    return build(tmp_path_factory.mktemp("startup") / "lam", tiny_weights, tiny_base)


def run(code, *argv, cwd):
    result = subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "load",
    [
        "from sentence_transformers import SentenceTransformer as S; S(F, device='cpu')",
        "from transformers import AutoModel as A; A.from_pretrained(F)",
        "from transformers import AutoConfig as A; A.from_pretrained(F)",
    ],
)
def test_a_folder_loads_in_a_process_that_never_imports_the_package(folder, tmp_path, load):
    run(f"import sys; assert 'lam_model' not in sys.modules; F = sys.argv[1]; {load}", folder, cwd=tmp_path)


def test_the_vectors_are_those_of_the_package(folder, tmp_path):
    code = "import sys; from sentence_transformers import SentenceTransformer as S; M = S(sys.argv[1], device='cpu')"
    vector = json.loads(run(f"{code}; print(M.encode('ba de fi').tolist())", folder, cwd=tmp_path).splitlines()[-1])
    golden = json.loads((folder / "manifest.json").read_text())
    assert len(vector) == len(golden["golden"][0]["vector"])
    import lam_model

    np.testing.assert_allclose(vector, lam_model.load(folder, device="cpu").encode("ba de fi"), atol=1e-6)


def test_a_broken_package_breaks_nobody_elses_import(folder, tmp_path):
    code = "import sys; sys.modules['lam_model'] = None; from transformers import AutoConfig, AutoModel; print('there')"
    assert "there" in run(code, cwd=tmp_path)


def test_nothing_is_imported_when_python_starts(tmp_path):
    code = "import sys; print(sorted({'lam_model', 'importlib.util', 'warnings', 'numpy', 'torch'} & set(sys.modules)))"
    found = set(json.loads(run(code, cwd=tmp_path).replace("'", '"')))
    bare = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "lam_model" not in found
    assert not {"numpy", "torch"} & found, bare
