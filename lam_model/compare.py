"""LAM beside the base it was made from: vectors, speed, and scores by mteb's own task classes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from .base import find_base

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 32  # texts a timed batch: sentence-transformers' own default
_BASE_MOST = 512  # tokens: all that MiniLM has positions for

Scores = dict[str, dict[str, float]]


def load_base() -> SentenceTransformer:
    """The base itself, which cuts texts at 256 tokens unless told otherwise."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(find_base()), device="cpu", local_files_only=True)


@contextmanager
def limited(model: SentenceTransformer, max_tokens: int) -> Iterator[SentenceTransformer]:
    """A model that reads at most so many tokens, for a while."""
    before = model.max_seq_length
    model.max_seq_length = max_tokens
    try:
        yield model
    finally:
        model.max_seq_length = before


def compare_texts(lam: SentenceTransformer, base: SentenceTransformer, texts: Sequence[str]) -> dict[str, float]:
    """Cosine of LAM's vectors to the base's, and the speed of both, batch for batch in turn.

    Both read as many tokens as the base does.
    """
    texts = sorted(texts, key=len)
    batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
    models = {"lam": lam, "base": base}
    seconds = dict.fromkeys(models, 0.0)
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in models}
    with limited(lam, base.max_seq_length):
        for model in models.values():
            model.encode(batches[-1], show_progress_bar=False)  # the first call is slower
        for batch in tqdm(batches, desc="texts", unit="batch", disable=None):
            for name, model in models.items():
                begun = time.perf_counter()
                vectors[name].append(model.encode(batch, normalize_embeddings=True, show_progress_bar=False))
                seconds[name] += time.perf_counter() - begun
    cosine = np.sort((np.concatenate(vectors["lam"]) * np.concatenate(vectors["base"])).sum(axis=1))
    return {
        "texts": len(texts),
        "max_tokens": base.max_seq_length,
        "cosine": round(float(cosine.mean()), 4),
        "worst_5_percent": round(float(cosine[: max(1, len(cosine) // 20)].mean()), 4),
        "lam_texts_per_second": round(len(texts) / seconds["lam"], 1),
        "minilm_texts_per_second": round(len(texts) / seconds["base"], 1),
    }


def compare_tasks(
    load: Callable[..., SentenceTransformer],
    tasks: Sequence[str],
    folder: Path,
    scores: Scores | None = None,
    done: Callable[[Scores], None] = lambda scores: None,
) -> Scores:
    """Main scores, in percent, of LAM, its variants and the base, by mteb's own task classes.

    Retrieval has three rows more: whole texts for both, and LAM's queries on the base's document vectors.

    Args:
        load: loads LAM; takes `base_only`.
        tasks: names of mteb tasks.
        folder: holds the tasks' data as on the Hub (`mteb/scifact`, ...), which mteb then loads offline.
        scores: {row: {task: score}} of an earlier, interrupted call: these are not measured again.
        done: called with all scores after each one that was measured.

    Raises:
        FileNotFoundError, ValueError: the folder or a task is not there.
        ImportError: mteb is not installed.
    """
    scores = {row: dict(by_task) for row, by_task in (scores or {}).items()}
    with _offline_in(folder):
        try:
            import mteb
        except ImportError as error:
            raise ImportError("tasks need mteb: pip install 'lam-model[mteb]'") from error
        try:
            chosen = mteb.get_tasks(tasks=list(tasks))
        except KeyError as error:
            raise ValueError(f"mteb has no such task: {error.args[0]}") from error
        retrieval = [task for task in chosen if task.metadata.type == "Retrieval"]

        def score(row: str, model: Any, tasks: Sequence[Any]) -> None:
            for task in tasks:
                name = task.metadata.name
                if name in scores.get(row, {}):
                    continue
                tqdm.write(f"{row}: {name}")
                result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)[0]
                scores.setdefault(row, {})[name] = round(100 * float(result.get_score()), 2)
                done(scores)

        base, lam = load_base(), load()
        cut = base.max_seq_length
        score(f"MiniLM, {cut} tokens", base, chosen)
        with limited(lam, cut):
            score(f"LAM, {cut} tokens", lam, chosen)
        score("LAM, whole texts", lam, retrieval)
        with limited(lam, cut):
            score("LAM's queries on MiniLM's documents", _mixed(lam, base), retrieval)
        with limited(load(base_only=True), cut) as base_only:
            score("base-only (no DeltaNet layers)", base_only, chosen)
        with limited(base, _BASE_MOST):
            score(f"MiniLM, {_BASE_MOST} tokens", base, retrieval)
    return scores


def without_lam(scores: Scores) -> Scores:
    """The rows that are the same whatever the DeltaNet weights."""
    return {row: by_task for row, by_task in scores.items() if not row.startswith("LAM")}


def _mixed(queries: SentenceTransformer, documents: SentenceTransformer) -> Any:
    """An mteb encoder that asks one model for queries and another for documents."""
    from mteb.models import SentenceTransformerEncoderWrapper
    from mteb.types import PromptType

    class Mixed(SentenceTransformerEncoderWrapper):
        def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **kwargs: Any) -> Any:
            model = queries if prompt_type == PromptType.query else documents
            return SentenceTransformerEncoderWrapper(model).encode(inputs, prompt_type=prompt_type, **kwargs)

    return Mixed(queries)


@contextmanager
def _offline_in(folder: Path) -> Iterator[None]:
    """mteb and datasets load `mteb/scifact` and the like from the working directory, if they must not go online."""
    if not (folder / "mteb").is_dir():
        raise FileNotFoundError(f"{folder} is no folder of task data: it must hold mteb/scifact or the like")
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # read when mteb is imported
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def table(scores: Scores) -> str:
    """The scores as a markdown table."""
    tasks = list(dict.fromkeys(task for by_task in scores.values() for task in by_task))
    lines = [["", *tasks], ["---"] * (len(tasks) + 1)]
    for row, by_task in scores.items():
        lines.append([row, *(f"{by_task[task]:.2f}" if task in by_task else "" for task in tasks)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
