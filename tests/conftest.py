"""Shared by all tests: nothing is downloaded, and a tiny random BERT stands in for the base where it can."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lam_model.folder.base import find_base
from lam_model.model.modeling_lam import LamModel
from lam_model.training.start import convert

BLOCK = 64  # position embeddings of the tiny base
SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
WORDS = [
    a + b for a in ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru") for b in ("dal", "lem", "nis", "tor")
]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: minutes rather than seconds (run with -m slow)")


def pytest_collection_modifyitems(config, items):
    if "slow" not in config.getoption("-m"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture(scope="session", autouse=True)
def _datasets_cache_is_temporary(tmp_path_factory):
    """Files that tests read are not copied into the user's cache of datasets."""
    datasets = pytest.importorskip("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="session")
def base() -> Path:
    """The real all-MiniLM-L6-v2."""
    return find_base(local_files_only=True)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A random BERT of unusual sizes in a sentence-transformers folder of the legacy form."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny_base")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *("##" + c for c in letters), ".", ","]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True).save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        max_position_embeddings=BLOCK,
        type_vocab_size=3,
        layer_norm_eps=1e-6,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    bert = BertModel(config)
    with torch.no_grad():
        for name, parameter in bert.named_parameters():  # biases and LayerNorms that a mix-up would show
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    bert.save_pretrained(folder)
    written = {
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": BLOCK, **special},
        "special_tokens_map.json": special,
        "sentence_bert_config.json": {"max_seq_length": BLOCK, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True},
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ],
    }
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tiny_base, tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "deltanet.safetensors"
    weights = {k: v.clone() for k, v in convert(tiny_base).state_dict().items() if ".delta_net." in k}
    save_file({k: (v + 0.02 * torch.randn_like(v)).half() for k, v in weights.items()}, path)
    return path


def _with_lively_gates(model: LamModel) -> LamModel:
    """Write strengths and decays that depend on the token, and a state that lasts: as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.layers:
            net, gates = layer.delta_net, 4 * layer.delta_net.heads
            net.in_proj.weight[-gates:].normal_(std=0.1, generator=generator)
            net.in_proj.bias[-gates // 2 :] = 4.0
            net.scale.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.fixture
def tiny_lam(tiny_base) -> LamModel:
    """A LAM made from the tiny base, as if trained; a fresh one for each test."""
    return _with_lively_gates(convert(tiny_base))


@pytest.fixture
def empty_memory_is_nan():
    """What a kernel leaves unwritten is NaN, not a leftover that happens to be right."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(8).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def lively_gates():
    """What makes a LAM look trained."""
    return _with_lively_gates


@pytest.fixture(scope="session")
def sentences():
    """Made-up texts that the tiny base has words for: `sentences(count, words)`."""

    def make(count: int, words: int, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        return [" ".join(rng.choice(WORDS, words)) for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no shared data beside the repository")
    return SHARED_DATA
