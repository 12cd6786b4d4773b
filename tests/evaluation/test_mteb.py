"""LAM in mteb: the literal command, keys and revisions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import PACKAGED_WEIGHTS, build

from lam_model.folder.base import sha256

mteb = pytest.importorskip("mteb")

from lam_model.evaluation.mteb import lam_models, register  # noqa: E402  (needs mteb)


def test_mteb_knows_lam_and_base_only_by_short_keys():
    for key, name in (("lam", "org/lam"), ("lam-base", "org/lam-base")):
        assert mteb.get_model_meta(key).name == mteb.get_model_meta(name).name == name


def test_the_revision_is_that_of_the_packaged_weights():
    assert lam_models.lam.revision == sha256(PACKAGED_WEIGHTS)[:40]


def test_sizes_are_those_of_the_model(base):
    from lam_model.training.start import convert

    model = convert(base)
    assert lam_models.lam.n_parameters == sum(p.numel() for p in model.parameters())
    assert lam_models.lam.n_embedding_parameters == model.embeddings.word_embeddings.weight.numel()
    assert lam_models.lam.embed_dim == model.config.hidden_size
    assert lam_models.lam.memory_usage_mb == round(sum(p.numel() for p in model.parameters()) * 4 / 2**20)


def test_what_was_trained_on_is_not_zero_shot():
    lam = mteb.get_model_meta("lam")
    assert lam.is_zero_shot_on(["SciFact", "STSBenchmark"])
    assert not lam.is_zero_shot_on(["MedicalQARetrieval"])
    assert not lam.is_zero_shot_on(["NQ"])  # MiniLM was trained on it


def test_a_folder_in_the_environment_is_loaded_and_names_the_revision(tmp_path, monkeypatch, tiny_base, tiny_weights):
    folder = build(tmp_path / "lam", tiny_weights, tiny_base)
    monkeypatch.setenv("LAM_MODEL_PATH", str(folder))
    registry = {}
    register(registry)
    assert set(registry) == {"lam", "org/lam", "lam-base", "org/lam-base"}
    assert registry["lam"].revision == sha256(tiny_weights)[:40]
    model = registry["lam-base"].load_model(device="cpu").model
    assert model.get_sentence_embedding_dimension() == 48
    assert model[0].auto_model.config.base_only


def test_the_mteb_command_itself_runs_lam_on_all_mock_tasks(tmp_path):
    command = Path(sys.executable).with_name("mteb")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [command, "mock-run", "-m", "lam"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "passed all expected checks" in run.stdout, run.stdout


def test_lam_mteb_is_mtebs_own_command(monkeypatch, capsys):
    from lam_model import cli

    monkeypatch.setattr(sys, "argv", ["lam"])
    with pytest.raises(SystemExit) as stop:
        cli.main(["mteb", "run", "--help"])
    assert stop.value.code == 0
    assert "usage: mteb run" in capsys.readouterr().out


def test_other_processes_do_not_import_lam_at_their_start(tmp_path):
    code = "import sys; print('lam_model' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
