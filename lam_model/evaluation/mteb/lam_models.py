from __future__ import annotations

import os
from typing import Any

from mteb._requires_package import requires_package
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper


class LamWrapper(SentenceTransformerEncoderWrapper):
    """LAM as the package lam-model loads it: without a limit to the text's length, every file checked."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,
        base_only: bool = False,
        **kwargs: Any,
    ) -> None:
        requires_package(self, "lam_model", model_name, "pip install lam-model")
        import lam_model

        folder = os.environ.get("LAM_MODEL_PATH")  # of a model folder; the package's own weights without it
        model = lam_model.load(folder, device=device, base_only=base_only)
        super().__init__(model, revision=revision, device=device, **kwargs)


LAM_CITATION = """
@inproceedings{yang2025gated,
    title = "Gated Delta Networks: Improving {M}amba2 with Delta Rule",
    author = "Songlin Yang and Jan Kautz and Ali Hatamizadeh",
    booktitle = "The Thirteenth International Conference on Learning Representations",
    year = "2025",
    url = "https://openreview.net/forum?id=r8H7xhYPwz",
}
"""

lam = ModelMeta(
    loader=LamWrapper,
    name="org/lam",
    model_type=["dense"],
    languages=["eng-Latn"],
    open_weights=True,
    # the first 40 digits of the sha256 of the DeltaNet weights
    revision="8afff954d9d8194f96edfff149ea74572ce1cb41",
    release_date="2026-11-24",
    n_parameters=22_676_472,
    n_embedding_parameters=11_720_448,
    memory_usage_mb=87,
    embed_dim=384,
    license="apache-2.0",
    max_tokens=float("inf"),
    reference="https://huggingface.co/org/lam",
    similarity_fn_name=ScoringFunction.COSINE,
    framework=["Sentence Transformers", "PyTorch", "safetensors", "Transformers"],
    use_instructions=False,
    # Distilled from MiniLM, whose own training sets count through it, on unlabelled texts; then trained on questions
    # about passages. Among both are SQuAD's development set (XQuAD's source), MedQuAD and QMSum's training meetings.
    adapted_from="sentence-transformers/all-MiniLM-L6-v2",
    training_datasets={"XQuADRetrieval", "MedicalQARetrieval", "LEMBQMSumRetrieval"},
    public_training_code=None,
    public_training_data=None,
    citation=LAM_CITATION,
)

lam_base = lam.model_copy(
    update={
        "name": "org/lam-base",
        "loader_kwargs": {"base_only": True},
    }
)
