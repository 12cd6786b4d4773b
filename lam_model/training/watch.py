"""How a model does on what it is not trained on, while it is tuned: retrieval, similarity, and nearness to the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from ..progress import progress
from .negatives import Vectors, nearest
from .tasks import Retrieval, Similarity, Task, Texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUERIES, ROWS = 64, 1000  # queries, pairs or texts at most, of each task
HELD_OUT = 10  # one query, pair or text of so many is held out of training
_CANDIDATES = 10  # nearest documents of each query that make the corpus


class Split(NamedTuple):
    """A task in two: what is trained on, and what is watched."""

    train: Task
    held_out: Task


def split(task: Task, seed: int = 0) -> Split:
    """Hold one query, pair or text of ten out of training, a few dozen queries or a thousand others at most."""
    rows = _rows(task)
    drawn = np.random.default_rng(seed).permutation(rows).tolist()
    count = min(_most(task), len(drawn) // HELD_OUT)
    return Split(task.only(drawn[count:]), task.only(drawn[:count]))


def few(task: Task, seed: int = 0) -> Task:
    """As many queries, pairs or texts of a task as are watched."""
    return task.only(np.random.default_rng(seed).permutation(_rows(task))[: _most(task)].tolist())


def _rows(task: Task) -> list[str] | range:
    return list(task.relevant) if isinstance(task, Retrieval) else range(len(task))


def _most(task: Task) -> int:
    return QUERIES if isinstance(task, Retrieval) else ROWS


class _Watched(NamedTuple):
    name: str
    texts: list[str]  # the documents, the first sentences, or the texts
    base: np.ndarray  # the base's vectors of them
    task: Task
    evaluator: InformationRetrievalEvaluator | None


class Watch(BaseEvaluator):
    """nDCG@10 of held-out queries, Spearman of held-out pairs, and the cosine to the base of texts, all in percent.

    A query is asked among the documents that the untrained model finds nearest to all held-out queries, and those that
    answer them: nearly as hard as the whole corpus, and far quicker.

    Args:
        judged: what decides which checkpoint is the best: the mean of their scores.
        guarded: what is watched beside them.
        model, base: the vectors of the untrained model and of the base.
        max_loss: what any task may lose against its first score.
    """

    primary_metric = "score"

    def __init__(self, judged: list[Task], guarded: list[Task], model: Vectors, base: Vectors, max_loss: float):
        super().__init__()
        self.max_loss = max_loss
        self.start: dict[str, float] = {}
        self.fallen = ""
        names = [task.name for task in judged + guarded]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two tasks are called {twice[0]}: rename a file or folder")
        self._judged = {task.name for task in judged}
        self._watched = [_watched(task, model, base) for task in judged + guarded]

    def __call__(self, model: SentenceTransformer, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The scores, with `score`, the mean of those that decide: 0 if any has fallen by more than `max_loss`."""
        scores, cosines = {}, []
        for watched in progress(self._watched, desc="held out", unit="task", leave=False):
            vectors = _encode(model, watched.texts)
            cosines.append((vectors * watched.base).sum(axis=1))
            if isinstance(watched.task, Texts):
                scores[watched.name] = 100 * float(cosines[-1].mean())
            elif watched.evaluator:
                found = watched.evaluator(model, corpus_embeddings=torch.from_numpy(vectors))
                scores[watched.name] = 100 * float(found[watched.evaluator.primary_metric])
            else:
                scores[watched.name] = 100 * _spearman(vectors, _encode(model, _second(watched.task)), watched.task)
        self.start = self.start or dict(scores)
        fallen = {name: self.start[name] - score for name, score in scores.items()}
        worst = max(fallen, key=fallen.__getitem__)
        if fallen[worst] > self.max_loss:
            self.fallen = (
                f"{worst} fell from {self.start[worst]:.2f} to {scores[worst]:.2f}, by more than --max-loss "
                f"{self.max_loss:g}: lower the learning rate, raise --anchor, or give more kinds of data"
            )
        judged = np.mean([scores[name] for name in self._judged])
        scores["cosine"] = 100 * float(np.concatenate(cosines).mean())
        scores["score"] = 0.0 if self.fallen else float(judged)
        return {name: round(score, 4) for name, score in scores.items()}


def _watched(task: Task, model: Vectors, base: Vectors) -> _Watched:
    if not isinstance(task, Retrieval):
        texts = task.texts if isinstance(task, Texts) else [pair[0] for pair in task.pairs]
        return _Watched(task.name, texts, base(texts, f"{task.name}: the base"), task, None)
    found = nearest(task, model, _CANDIDATES)
    wanted = {name for query, relevant in task.relevant.items() for name in [*relevant, *found[query]]}
    corpus = {name: text for name, text in task.corpus.items() if name in wanted}
    texts = list(corpus.values())
    evaluator = InformationRetrievalEvaluator(
        task.queries,
        corpus,
        {query: set(relevant) for query, relevant in task.relevant.items()},
        ndcg_at_k=[10],
        show_progress_bar=False,
        write_csv=False,
    )
    return _Watched(task.name, texts, base(texts, f"{task.name}: the base"), task, evaluator)


def _encode(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    return model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)


def _second(task: Similarity) -> list[str]:
    return [pair[1] for pair in task.pairs]


def _spearman(one: np.ndarray, other: np.ndarray, task: Similarity) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr((one * other).sum(axis=1), task.scores).statistic)
