"""Scores on mteb tasks, by mteb's own classes: LAM beside the base it was made from, base-only and BM25."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .compare import load_base

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SUITES = {
    "sts": ("STSBenchmark", "STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R", "BIOSSES"),
    "retrieval": ("SciFact", "NFCorpus", "ArguAna", "FiQA2018", "SCIDOCS"),
}
# all-MiniLM-L6-v2 in mteb's published results
OFFICIAL = {
    "STSBenchmark": 82.03,
    "STS12": 72.37,
    "STS13": 80.60,
    "STS14": 75.59,
    "STS15": 85.39,
    "STS16": 78.99,
    "SICK-R": 77.58,
    "SciFact": 64.51,
    "NFCorpus": 31.59,
    "ArguAna": 50.17,
}
BASE_MOST = 512  # tokens: all that MiniLM has positions for

Scores = dict[str, dict[str, float]]  # main scores in percent: {row: {task: score}}
Load = Callable[..., "SentenceTransformer"]


def evaluate(
    load: Load,
    tasks: Sequence[str],
    folder: Path | None = None,
    scores: Scores | None = None,
    done: Callable[[Scores], None] = lambda scores: None,
    only_pair: bool = False,
) -> tuple[Scores, dict[str, dict[str, Any]]]:
    """Score LAM, its variants, the base and, in retrieval, BM25.

    Models read as many tokens as the base does; retrieval has rows more with whole texts, and one with LAM's queries
    on the base's document vectors.

    Args:
        load: loads LAM; takes `base_only`.
        tasks: names of mteb tasks and of `SUITES`.
        folder: holds the tasks' data as on the Hub (`mteb/scifact`, ...), which mteb then loads offline; a suite's
            tasks that are not there are left out. If None, data come from the Hub.
        scores: of an earlier call: they are not measured again.
        done: called with all scores after each one that was measured.
        only_pair: only LAM and the base.

    Returns:
        The scores, and of every task its type, dataset, metric, and whether it is zero-shot: whether LAM and its
        base were trained on none of its data, as mteb knows it.

    Raises:
        FileNotFoundError, ValueError: the folder or a task is not there.
        ImportError: mteb is not installed.
    """
    scores = {row: dict(by_task) for row, by_task in (scores or {}).items()}
    with reading_from(folder):
        try:
            import mteb
        except ImportError as error:
            raise ImportError("tasks need mteb: pip install 'lam-model[mteb]'") from error
        chosen, rows = _tasks(tasks, folder), _rows(load, only_pair)
        # In the order of a first measurement, whatever was measured again.
        scores = {row: scores.get(row, {}) for row in dict.fromkeys([*rows, *scores])}
        for row, (encoder, only_retrieval) in rows.items():
            for task in chosen:
                name = task.metadata.name
                if name in scores[row] or (only_retrieval and task.metadata.type != "Retrieval"):
                    continue
                tqdm.write(f"{row}: {name}")
                result = mteb.evaluate(encoder(), task, cache=None, show_progress_bar=False)[0]
                scores[row][name] = round(100 * float(result.get_score()), 2)
                done(scores)
        measured = {row: by_task for row, by_task in scores.items() if by_task}
        return measured, {task.metadata.name: _about(task) for task in chosen}


def _rows(load: Load, only_pair: bool) -> dict[str, tuple[Callable[[], Any], bool]]:
    """Of every row: what gives its encoder, and whether it is for retrieval only."""
    import mteb

    limit = load_base().max_seq_length

    @cache  # loaded when there is something to measure
    def loaded(name: str) -> SentenceTransformer:
        return load_base() if name == "base" else load(base_only=name == "base-only")

    def reading(name: str, max_tokens: int) -> SentenceTransformer:
        model = loaded(name)
        model.max_seq_length = max_tokens
        return model

    rows = {
        f"MiniLM, {limit} tokens": (lambda: reading("base", limit), False),
        f"LAM, {limit} tokens": (lambda: reading("lam", limit), False),
    }
    if only_pair:
        return rows
    return rows | {
        "LAM, whole texts": (load, True),
        "LAM's queries on MiniLM's documents": (lambda: _mixed(reading("lam", limit), reading("base", limit)), True),
        "base-only (no DeltaNet layers)": (lambda: reading("base-only", limit), False),
        f"MiniLM, {BASE_MOST} tokens": (lambda: reading("base", BASE_MOST), True),
        "BM25": (lambda: mteb.get_model("mteb/baseline-bm25s"), True),
    }


def _tasks(names: Sequence[str], folder: Path | None) -> list[Any]:
    import mteb

    def tasks(names: Sequence[str]) -> list[Any]:
        return mteb.get_tasks(tasks=names) if names else []  # without names, mteb gives all it has

    try:
        named = {task.metadata.name: task for task in tasks([name for name in names if name not in SUITES])}
    except KeyError as error:
        raise ValueError(f"mteb has no such task: {error.args[0]}; suites are {', '.join(SUITES)}") from error
    for task in tasks([task for name in names for task in SUITES.get(name, ())]):
        if folder is None or (folder / task.metadata.dataset["path"]).is_dir():
            named.setdefault(task.metadata.name, task)
        else:
            tqdm.write(f"{task.metadata.name} is left out: {folder / task.metadata.dataset['path']} is not there")
    return list(named.values())


def _about(task: Any) -> dict[str, Any]:
    import mteb

    return {
        "type": task.metadata.type,
        "dataset": task.metadata.dataset["path"],
        "metric": task.metadata.main_score,
        "zero_shot": mteb.get_model_meta("lam").is_zero_shot_on([task]),
    }


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
def reading_from(folder: Path | None) -> Iterator[None]:
    """mteb and datasets load `mteb/scifact` and the like from the working directory, if they must not go online."""
    if folder is None:
        yield
        return
    if not (folder / "mteb").is_dir():
        raise FileNotFoundError(f"{folder} is no folder of task data: it must hold mteb/scifact or the like")
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # read when mteb is imported
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def table(scores: Scores, tasks: dict[str, dict[str, Any]]) -> str:
    """The scores as a markdown table, a line a task, beside the base's official figures."""
    lines = [["task", "zero-shot", "MiniLM, official", *scores], ["---"] * (len(scores) + 3)]
    for task, about in tasks.items():
        cells = [OFFICIAL.get(task), *(by_task.get(task) for by_task in scores.values())]
        seen = {True: "yes", False: "no", None: "not known"}[about["zero_shot"]]
        lines.append([task, seen, *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
