"""A pytest plugin in which the models that sentence-transformers' tests take from the Hub are tiny.

A BERT if the environment variable `PEERS_MODEL` is `bert`: which tests fail then is written down, and expected of the
LAM that it makes else.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from datasets import Dataset, DatasetDict
from folders import build
from huggingface_hub import constants
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from lam_model.folder.base import find_base
from lam_model.training.start import convert

TINY = "sentence-transformers-testing/stsb-bert-tiny-safetensors"
NAMES = (TINY, "distilbert-base-uncased")
REVISION = 40 * "1"
BERT = os.environ["PEERS_MODEL"] == "bert"
FAILED = Path("failed_with_bert.json")
failed: list[str] = []

sys.modules["tests.utils"] = ModuleType("tests.utils")  # which the source distribution lacks
sys.modules["tests.utils"].is_ci = lambda: True


def pytest_configure(config: pytest.Config) -> None:
    """Write the Hub's cache, in which libraries look first."""
    hub = Path(constants.HF_HUB_CACHE)
    shutil.rmtree(hub, ignore_errors=True)
    base, weights = hub / "base", hub / "deltanet.safetensors"
    shutil.copytree(find_base(local_files_only=True), base)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    torch.manual_seed(0)
    BertModel(BertConfig(**sizes)).save_pretrained(base)
    for pooling in base.glob("*Pooling/config.json"):
        pooling.write_text('{"word_embedding_dimension": 128, "pooling_mode_mean_tokens": true}')
    (base / "README.md").unlink(missing_ok=True)
    save_file({name: x.clone() for name, x in convert(base).state_dict().items() if ".delta_net." in name}, weights)
    for name in NAMES:
        repository = hub / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(REVISION)
        snapshot = repository / "snapshots" / REVISION
        if BERT:
            shutil.copytree(base, snapshot)
        else:
            build(snapshot, weights, base)
        (snapshot / "README.md").write_text("# A tiny model\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        failed.append(report.nodeid.rpartition("::")[2])


def pytest_sessionfinish() -> None:
    if BERT:
        FAILED.write_text(json.dumps(failed))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    with_bert = [] if BERT else json.loads(FAILED.read_text())
    for item in items:
        if item.name in with_bert:
            item.add_marker(pytest.mark.skip(reason="fails with BERT too"))


@pytest.fixture(scope="session")
def tiny_model() -> SentenceTransformer:
    model = SentenceTransformer(TINY, device="cpu")
    model.model_card_data.generate_widget_examples = False
    return model


@pytest.fixture
def stsb_bert_tiny_model(tiny_model: SentenceTransformer) -> SentenceTransformer:
    return copy.deepcopy(tiny_model)


@pytest.fixture
def stsb_dataset_dict() -> DatasetDict:
    """Of the form of STS-B."""
    rows = [{"sentence1": f"a cat {i}", "sentence2": f"a dog {i}", "score": i / 99} for i in range(100)]
    return DatasetDict({split: Dataset.from_list(rows) for split in ("train", "validation", "test")})
