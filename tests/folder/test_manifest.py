"""The model folder: complete, verified, and refused when a byte of it is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import folders as folder
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from lam_model import cli
from lam_model.folder import build as building
from lam_model.folder.base import sha256
from lam_model.runtime.loading import load


@pytest.fixture(scope="module")
def built(tiny_base, tiny_weights, tmp_path_factory):
    return folder.build(tmp_path_factory.mktemp("built") / "lam", tiny_weights, tiny_base)


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "lam")


def rehash(path):
    """Make the manifest agree with a tampered weight file, so that only the later checks can find it."""
    manifest = json.loads((path / folder.MANIFEST).read_text())
    manifest["sha256"][folder.WEIGHTS] = sha256(path / folder.WEIGHTS)
    (path / folder.MANIFEST).write_text(json.dumps(manifest))


def tamper(path, change):
    tensors = load_file(path / folder.WEIGHTS)
    change(tensors)
    save_file(tensors, path / folder.WEIGHTS, metadata={"format": "pt"})
    rehash(path)


def test_a_built_folder_verifies(built):
    lines = folder.verify(built)
    assert len(lines) == 3
    assert f"{len(folder.GOLDEN_TEXTS)} golden vectors" in lines[2]


def test_the_packaged_weights_build_a_folder_that_verifies(tmp_path):
    assert folder.verify(folder.build(tmp_path / "lam"))


def test_a_built_folder_has_the_legacy_form_and_no_limit(built):
    modules = json.loads((built / "modules.json").read_text())
    assert [m["type"] for m in modules] == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")
    ]
    assert json.loads((built / "sentence_bert_config.json").read_text())["max_seq_length"] is None
    tokenizer = json.loads((built / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None


def test_trained_weights_are_in_the_folder(built, tiny_weights):
    tensors = load_file(built / folder.WEIGHTS)
    for name, tensor in load_file(tiny_weights).items():
        assert torch.equal(tensors[name], tensor.float())


def test_the_folder_loads_without_the_package(built, tmp_path):
    script = (
        "import sys; from sentence_transformers import SentenceTransformer;"
        "m = SentenceTransformer(sys.argv[1], trust_remote_code=True, device='cpu');"
        "print(m.encode('ba de fi').tolist())"
    )
    code = f"import sys; sys.modules['lam_model'] = None; {script}"  # importing it fails
    result = subprocess.run(
        [sys.executable, "-c", code, str(built)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    vector = json.loads(result.stdout.splitlines()[-1])
    np.testing.assert_allclose(vector, load(built, device="cpu").encode("ba de fi"), atol=1e-5)


def test_a_folder_that_is_there_is_not_written_over(built, tiny_weights, tiny_base):
    with pytest.raises(FileExistsError, match="there already"):
        folder.build(built, tiny_weights, tiny_base)


def test_a_failed_build_leaves_nothing(tiny_base, tiny_weights, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lam_model.folder.manifest.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        folder.build(tmp_path / "lam", tiny_weights, tiny_base)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "1_Pooling/config.json", "modeling_lam.py"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        folder.check(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "delta_rule.py"])
def test_a_flipped_byte_is_found(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} was altered or damaged"):
        folder.check(copy)


def test_a_truncated_weight_file_is_found(copy):
    (copy / folder.WEIGHTS).write_bytes((copy / folder.WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ValueError, match="altered or damaged"):
        folder.check(copy)
    rehash(copy)
    with pytest.raises(ValueError, match="is damaged"):
        folder.verify(copy)


NAME = "layers.1.delta_net.scale"
FAULTS = {
    "missing": (lambda t: t.pop(NAME), f"{NAME} is missing"),
    "extra": (lambda t: t.update(extra=torch.ones(1)), "extra is not LAM's"),
    "misshapen": (lambda t: t.update({NAME: torch.ones(5)}), rf"{NAME} is \(5,\)"),
    "int32": (lambda t: t.update({NAME: t[NAME].int()}), f"{NAME} is int32"),
    "nan": (lambda t: t[NAME].fill_(torch.nan), f"{NAME} is not finite"),
    "half": (lambda t: t.update({NAME: t[NAME].half()}), f"{NAME} is float16, not float32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_tensors_are_named(copy, fault):
    change, message = FAULTS[fault]
    tamper(copy, change)
    with pytest.raises(ValueError, match=message):
        folder.verify(copy)


def test_other_weights_than_the_golden_vectors_are_found(copy):
    tamper(copy, lambda t: t["layers.0.delta_net.out_proj.weight"].mul_(1.5))
    with pytest.raises(ValueError, match="golden vectors differ"):
        folder.verify(copy)


def test_weights_of_another_base_are_refused(tiny_weights, tmp_path):
    with pytest.raises(ValueError, match="does not fit"):
        folder.build(tmp_path / "lam", tiny_weights)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_model_is_refused(tiny_base):
    with pytest.raises(ValueError, match="'bert' model, not a LAM"):
        folder.check(tiny_base)


def test_a_base_with_other_modules_is_refused(tiny_base, tiny_weights, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    modules = json.loads((base / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.Dense"
    (base / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"modules\.json lists Transformer, Dense"):
        folder.build(tmp_path / "lam", tiny_weights, base)


def test_two_processes_may_build_the_packaged_model_at_once(tiny_base, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("lam_model.folder.build.find_part", lambda: tiny_base)
    built = []

    def build_as_another_does(path, embed, weights):
        built.append(building.build(path, embed, weights))
        return building.build(path, embed, weights)  # there is one already

    monkeypatch.setattr("lam_model.runtime.cache.build", build_as_another_does)
    path, manifest = folder.cached(tiny_weights)
    assert built == [path]
    assert manifest == folder.check(path)
    shutil.rmtree(path)

    def fails(path, embed, weights):
        raise OSError("no space left")

    monkeypatch.setattr("lam_model.runtime.cache.build", fails)
    with pytest.raises(OSError, match="no space left"):
        folder.cached(tiny_weights)


@pytest.fixture
def saved(tmp_path, tiny_base, tiny_weights):
    """A LAM whose weights have changed, as sentence-transformers saves it after training."""
    model = SentenceTransformer(str(folder.build(tmp_path / "lam", tiny_weights, tiny_base)), device="cpu")
    with torch.no_grad():
        model[0].auto_model.layers[0].up.weight.mul_(1.5)
    model.encode(["ba de"])  # gives the tokenizer settings that are saved too
    model.save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved", model


def test_what_was_saved_loads_without_the_package(saved):
    path, _ = saved
    assert set(folder.CODE) <= {one.name for one in path.iterdir()}


def test_what_was_saved_is_adopted(saved):
    path, model = saved
    for call in (load, folder.verify):
        with pytest.raises(FileNotFoundError, match=re.escape(f"lam verify --adopt {path}")):
            call(path)
    assert cli.main(["verify", "--adopt", str(path)]) == 0
    texts = ["ba de fi", "go " * 200]
    adopted = load(path, device="cpu")
    np.testing.assert_allclose(adopted.encode(texts), model.encode(texts), atol=1e-6)
    assert json.loads((path / "tokenizer.json").read_text())["padding"] is None
    folder.verify(path)
    (path / folder.WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="altered or damaged"):
        folder.check(path)
    with pytest.raises(ValueError, match="damaged"):
        folder.adopt(path)


def test_what_is_no_lam_is_not_adopted(tiny_base, tmp_path):
    shutil.copytree(tiny_base, tmp_path / "bert")
    with pytest.raises(ValueError, match="holds a 'bert' model"):
        folder.adopt(tmp_path / "bert")
    assert not (tmp_path / "bert" / folder.MANIFEST).exists()


def test_weights_that_are_not_finite_are_not_adopted(saved):
    path, _ = saved
    tensors = load_file(path / folder.WEIGHTS)
    tensors["layers.0.up.weight"][0, 0] = torch.nan
    save_file(tensors, path / folder.WEIGHTS)
    with pytest.raises(ValueError, match=r"layers\.0\.up\.weight is not finite"):
        folder.adopt(path)
    assert not (path / folder.MANIFEST).exists()
