"""The text of model_card.md, from this folder's figures."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lam_model.evaluation.scores import table

NAME = "org/lam"
SOURCES = (  # of the training texts: what, where it is from, licence
    ("titles and abstracts of arXiv, 2025 to 2026", "dw-dengwei/daily-arXiv-ai-enhanced", "CC0"),
    ("English Wikipedia, 2014", "ZhouYii/PatchedDistro", "CC BY-SA 3.0"),
    ("PubMed Central trials", "jayded/evidence-inference", "CC BY or CC0, by article"),
    ("sentences of PubMed abstracts", "cambridgeltl/MTL-Bioinformatics-2016", "CC BY 4.0"),
    ("CRAFT: 97 articles", "UCDenver-ccp/CRAFT", "CC BY 3.0"),
    ("MedQuAD: medical questions and answers", "abachaa/MedQuAD", "CC BY 4.0"),
    ("SQuAD 1.1, development set", "rajpurkar/SQuAD-explorer", "CC BY-SA 4.0"),
    ("SNLI, sentences of the development and test sets", "OanaMariaCamburu/e-SNLI", "CC BY-SA 4.0"),
    ("dialogue utterances", "google-research-datasets/dstc8-schema-guided-dialogue", "CC BY-SA 4.0"),
    ("WordNet: terms and glosses", "Debian's wordnet-base", "WordNet licence"),
    ("package descriptions", "Debian's translation lists", "free, by package"),
    ("OpenTriviaQA", "uberspot/OpenTriviaQA", "CC BY-SA 4.0"),
    ("stories and questions about them, training part", "uci-soe/FairytaleQAData", "Apache 2.0"),
    ("meetings and questions about them, training part", "Yale-LILY/QMSum", "MIT"),
    ("fiction, plays, letters, essays, history, travel, how-to", "GITenberg, Standard Ebooks", "public domain"),
    ("documentation, government pages, speeches, dialogues", "open repositories on GitHub", "free, by repository"),
    ("textbooks of nursing and economics", "openstax/osbooks-*", "CC BY 4.0"),
)


def card(evaluation: dict[str, Any], comparison: dict[str, Any], training: str) -> str:
    """The whole card.

    Args:
        evaluation: what `lam eval` wrote.
        comparison: what `lam compare --held-out` wrote.
        training: a sentence on the runs.
    """
    scores, tasks, held_out = evaluation["scores"], evaluation["tasks"], comparison["held_out"]
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        tags=["sentence-transformers", "feature-extraction", "linear-attention", "deltanet", "long-context", "mteb"],
        model_name="lam",
        eval_results=[
            EvalResult(
                task_type=about["type"],
                dataset_type=about["dataset"],
                dataset_name=f"MTEB {name}",
                dataset_split="test",
                metric_type=about["metric"],
                metric_value=_whole(scores, name),
            )
            for name, about in tasks.items()
        ],
    )
    genre, row = min(comparison["genres"].items(), key=lambda item: item[1]["cosine"])
    worst = f"{genre}, {row['cosine']:.3f}"
    sources = "\n".join(f"| {' | '.join(source)} |" for source in SOURCES)
    return f"""---
{data.to_yaml()}
---
<!-- Written by `python results/tables.py` from results/: not to be edited by hand. -->
<!-- deltanet_sha256: {evaluation["deltanet_sha256"]} -->

# LAM

**all-MiniLM-L6-v2 that reads whole documents.** The same 384-dimensional space, the same frozen embeddings and
feed-forward layers; its six softmax attention layers are replaced by six trained gated DeltaNet layers. Time grows
linearly with the text, memory stays flat, nothing is truncated. English.

Mean cosine to MiniLM's own vectors on {held_out["texts"]} held-out texts of up to {held_out["max_tokens"]} tokens:
**{held_out["cosine"]:.4f}** (mean of the worst 5 %: {held_out["worst_5_percent"]:.4f}). So an index of
MiniLM's vectors can be searched with LAM's queries. The kind of text with the lowest cosine: {worst}.

## How to load it

With the package `lam-model` installed:

```python
import lam_model
from sentence_transformers import SentenceTransformer

model = lam_model.load("{NAME}")  # every file checked
model = SentenceTransformer("{NAME}")  # the same model
vectors = model.encode(["a sentence", "a whole document, however long"])
```

Without it, from the code in this repository:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{NAME}", trust_remote_code=True)
```

On ONNX Runtime, without torch, from the graphs in `onnx/` (`model.onnx`; `model_base.onnx` without the DeltaNet
layers; `_int8` of both; `model_portable.onnx` in standard operators only, for other runtimes):

```python
import lam_model
from huggingface_hub import snapshot_download

vectors = lam_model.OnnxEncoder(snapshot_download("{NAME}")).encode(["a sentence", "a whole document"])
model = lam_model.load("{NAME}", backend="onnx")  # a SentenceTransformer; dtype="int8" for the smaller graph
```

## How good it is

{table(scores, tasks)}

Main scores (Spearman or nDCG@10, in percent) by the task classes of mteb {evaluation["versions"]["mteb"]}, with torch
{evaluation["versions"]["torch"]} in {evaluation["dtype"]}; an empty cell was not measured. Zero-shot: as
far as mteb knows, neither LAM nor MiniLM was trained on the task's data. base-only: LAM without its DeltaNet layers.
{losses(scores)}

## Training

LAM was distilled from all-MiniLM-L6-v2. First each layer was trained to give the attention output, then the whole model
to give all hidden states and the pooled vector. Texts of several blocks were included. No labels were used. Then
passages were trained to know their document, by people's questions and headings that a passage answers. {training}
Texts of evaluation sets were left out. The texts:

| what | from | licence |
| --- | --- | --- |
{sources}

## Limits

- LAM was first trained to give MiniLM's vectors, and is held near them. On short texts it is about as good as MiniLM.
- One vector of a long text says what the text is about. A single sentence has little effect on it: use
  `encode_passages` to find facts.
- Vectors are near MiniLM's but not equal to them. Measure before you mix both in one index.
- English text only. Characters that MiniLM's tokenizer does not know become `[UNK]`.
"""


def losses(scores: dict[str, dict[str, float]]) -> str:
    """A sentence that names the tasks on which LAM is below MiniLM, both reading as much."""
    minilm, lam = (next(row for name, row in scores.items() if name.startswith(f"{m}, ")) for m in ("MiniLM", "LAM"))
    worse = [f"{task} ({lam[task] - minilm[task]:+.2f})" for task in lam if lam[task] < minilm[task]]
    return f"Below MiniLM on {', '.join(worse)}." if worse else "On none of these tasks is LAM below MiniLM."


def _whole(scores: dict[str, dict[str, float]], task: str) -> float:
    """LAM as it comes, without a limit to the text's length, where that was measured apart."""
    cut = next(row for name, row in scores.items() if name.startswith("LAM, "))
    return scores.get("LAM, whole texts", {}).get(task, cut[task])
