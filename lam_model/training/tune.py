"""Tuning: the DeltaNet layers become better at retrieval or similarity, and stay near the base.

The loop, checkpoints and exact resume are those of sentence-transformers' trainer. Held-out queries decide which
checkpoint stays, and a run ends when any task that is watched loses too much.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import constants
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer import losses
from tqdm import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from ..files import replacing, write_json
from ..folder.base import find_base, sha256
from ..folder.build import PACKAGED_WEIGHTS, build
from ..runtime.embed import embed
from ..runtime.loading import load
from ..runtime.sentence_transformers import key_of
from .distill import autocast_dtype
from .losses import Anchored, BaseVectors, contrastive, guided, near, scored, teacher_similarities, triplet
from .negatives import Embedders, Vectors, mine
from .plot import plot_tuning
from .processes import OneBatch, by_first, index
from .recipe import TuneRecipe
from .tasks import Retrieval, Similarity, Task, Texts, cut, guarded, read_task, sample
from .teacher import Teacher
from .topics import TopicBatches, by_topic
from .watch import Watch, few, split
from .weights import save, train_only_deltanet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT = 2  # checkpoints: the best and the last
_WATCHED = ("validation", "dev", "train")  # splits, the first that is there


@dataclass(frozen=True)
class Source:
    """Data to train on.

    Args:
        data: as for `tasks.read_task`.
        weight: how many times its rows come in an epoch.
        max_tokens: texts are cut at so many, instead of the recipe's.
        limit: a draw of at most so many queries, pairs or texts is taken.
    """

    data: str
    weight: float = 1.0
    max_tokens: int | None = None
    limit: int | None = None


class Start(NamedTuple):
    """What a run starts from: the model to be trained, the base that is its anchor, and the vectors of both."""

    model: SentenceTransformer
    base: BaseVectors
    embedders: Embedders


def start(
    out: Path,
    weights: Path | None = None,
    base: Path | None = None,
    teacher: str | None = None,
    device: str | None = None,
) -> Start:
    """Load what a run in the folder `out` starts from.

    Args:
        weights: of the DeltaNet layers; the packaged ones if None.
        base: what they were trained for; all-MiniLM-L6-v2 if None.
        teacher: name or folder of a stronger model.
    """
    built = None
    if weights or base:
        built = out / "start"
        if not built.exists():
            build(built, embed, Path(weights or PACKAGED_WEIGHTS), base and Path(base))
    model = load(built, device=device)
    base = Path(base) if base else find_base()
    bert = Teacher(base, model[0].auto_model.config.block_size).to(model.device)
    vectors = BaseVectors(bert)

    def by_base(texts: list[str]) -> np.ndarray:
        tokens = bert.tokenizer(texts, padding=True, truncation=False, return_tensors="pt", verbose=False)
        return vectors({name: tokens[name].to(model.device) for name in ("input_ids", "attention_mask")}).cpu().numpy()

    folder = Path(constants.HF_HOME) / "lam" / "vectors"
    fast = {"dtype": autocast_dtype(model.device)}
    stronger = SentenceTransformer(teacher, device=device, model_kwargs=fast) if teacher else None
    return Start(
        model,
        vectors,
        Embedders(
            Vectors(_by(model), key_of(model), folder),
            Vectors(by_base, sha256(base / "model.safetensors"), folder),
            Vectors(_by(stronger), key_of(stronger), folder) if stronger else None,
        ),
    )


def _by(model: SentenceTransformer) -> Callable[[list[str]], np.ndarray]:
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def prepare(
    sources: list[Source],
    watched: list[str],
    recipe: TuneRecipe,
    guard: frozenset[str],
    tokenizer: PreTrainedTokenizerBase,
    vectors: Embedders,
) -> tuple[dict[str, tuple[Dataset, float]], Watch, dict[str, int]]:
    """Read, guard, cut and split data, and mine negatives.

    Returns:
        Rows and weight of each task; what to watch: the held-out part of each, and a part of each of `watched`; how
        many queries, pairs or texts of each task the guard left out.

    Raises:
        FileNotFoundError, ValueError: as `read_task`; or there is too little to train on.
    """
    if recipe.loss == "teacher" and not vectors.teacher:
        raise ValueError("--loss teacher needs a stronger model: give --teacher")
    data: dict[str, tuple[Dataset, float]] = {}
    judged: list[Task] = []
    left_out: dict[str, int] = {}
    beside = [few(cut(read_task(one, _WATCHED), tokenizer, recipe.max_tokens), recipe.seed) for one in watched]
    for source in sources:
        task, count = guarded(read_task(source.data), guard)
        tqdm.write(f"{task.name}: {count} queries, pairs or texts are left out: evaluation texts, or held out")
        task = cut(
            sample(task, source.limit, recipe.seed) if source.limit else task,
            tokenizer,
            source.max_tokens or recipe.max_tokens,
        )
        train, watch = split(task, recipe.seed)
        if not len(watch):
            raise ValueError(
                f"{source.data} has {len(train)} rows to train on, of which a tenth is held out: give more"
            )
        if isinstance(train, Texts):
            rows = Dataset.from_dict({"text": train.texts})
        elif isinstance(train, Similarity):
            rows = pairs(train, vectors.teacher if recipe.loss == "teacher" else None)
        else:
            rows = training_rows(train, vectors, recipe)
        data[task.name], left_out[task.name] = (rows, source.weight), count
        (beside if isinstance(train, Texts) else judged).append(watch)
    if not judged:
        raise ValueError("there are only plain texts, which hold the vectors near the base: give queries or pairs too")
    return data, Watch(judged, beside, vectors.model, vectors.base, recipe.max_loss), left_out


def pairs(task: Similarity, teacher: Vectors | None) -> Dataset:
    """A row a pair: its sentences and its score, or in its place the cosine that a stronger teacher gives them."""
    first, second = map(list, zip(*task.pairs, strict=True))
    scores = task.scores
    if teacher:
        vectors = [teacher(side, f"{task.name}: pairs, by the teacher") for side in (first, second)]
        scores = np.einsum("ij,ij->i", *vectors).tolist()
    return Dataset.from_dict({"sentence1": first, "sentence2": second, "score": scores})


def training_rows(task: Retrieval, vectors: Embedders, recipe: TuneRecipe) -> Dataset:
    """A row a judged pair: `query`, `positive`, `negative_1`, ...; with `--loss teacher` its cosines as `label`."""
    judge = vectors.base if recipe.false_negative_margin is not None else None
    mined = {}
    if recipe.negatives:
        margin = recipe.false_negative_margin or 0.0
        mined = mine(task, vectors.model, recipe.negatives, judge, margin, recipe.seed)
    rows = [
        (query, document, *(negative.document for negative in mined.get(query, [])))
        for query, documents in task.relevant.items()
        for document in documents
    ]
    if recipe.topic_batches:
        asked = vectors.model([task.queries[row[0]] for row in rows], f"{task.name}: topics")
        rows = [rows[i] for i in by_topic(asked, recipe.batch_size, recipe.seed)]
    names = ["query", "positive", *(f"negative_{i}" for i in range(1, recipe.negatives + 1))]
    columns: dict[str, Any] = {
        name: [(task.corpus if i else task.queries)[row[i]] for row in rows] for i, name in enumerate(names)
    }
    if recipe.loss == "teacher":
        assert vectors.teacher is not None  # `prepare` has seen to it
        columns["label"] = _cosines(columns, vectors.teacher, task.name).tolist()
    return Dataset.from_dict(columns)


def _cosines(columns: dict[str, list[str]], teacher: Vectors, name: str) -> np.ndarray:
    """The teacher's cosines of each row's query to its candidates, (rows, candidates)."""
    query, *candidates = columns.values()
    texts = list(dict.fromkeys(text for column in candidates for text in column))
    place = {text: i for i, text in enumerate(texts)}
    documents = teacher(texts, f"{name}: candidates, by the teacher")
    asked = teacher(query, f"{name}: queries, by the teacher")
    found = np.array([[place[text] for text in column] for column in candidates])
    return np.einsum("rs,crs->rc", asked, documents[found])


class Tuning:
    """One run in a folder: trainer checkpoints to go on from, `log.jsonl`, `deltanet.safetensors`, `run.json`.

    Args:
        data: what is trained on, with the number of times that each comes in an epoch.
        watch: the held-out tasks.
        source: versions, data and command, for `run.json`.
    """

    def __init__(
        self,
        start: Start,
        data: dict[str, tuple[Dataset, float]],
        watch: Watch,
        out: Path,
        recipe: TuneRecipe,
        source: dict[str, Any] | None = None,
    ):
        self.model, self.watch, self.out, self.recipe, self.source = start.model, watch, out, recipe, source or {}
        out.mkdir(parents=True, exist_ok=True)
        self._check_folder()
        train_only_deltanet(self.model[0].auto_model)
        rows, objectives = {}, {}
        for name, (dataset, weight) in data.items():
            rows[name] = _weighted(dataset, weight, recipe)
            objectives[name] = self._loss(dataset, start.base)
        self.trainer = _Trainer(
            self.model,
            self._arguments(min(map(len, rows.values()))),
            train_dataset=DatasetDict(rows),
            loss=objectives,
            evaluator=watch,
            callbacks=[_Stop(watch), EarlyStoppingCallback(recipe.patience)],
        )

    def _check_folder(self) -> None:
        """A folder holds one recipe, and a run in it goes on from its last checkpoint."""
        path = self.out / "recipe.json"
        recipe = json.loads(json.dumps(asdict(self.recipe)))
        if path.is_file() and (there := json.loads(path.read_text(encoding="utf-8"))) != recipe:
            raise ValueError(
                f"{self.out} holds a run of another recipe ({there}): go on with that, or take another folder"
            )
        if index() == 0:
            write_json(path, recipe)

    def _loss(self, rows: Dataset, base: BaseVectors) -> torch.nn.Module:
        recipe, model = self.recipe, self.model
        if "text" in rows.column_names:
            objective = near(recipe.temperature)
        elif "score" in rows.column_names:
            objective = scored(model)
        elif recipe.loss == "teacher":
            objective = teacher_similarities(model, recipe.temperature)
        elif recipe.loss == "triplet":
            objective = triplet(model)
        elif recipe.false_negative_margin is not None:
            objective = guided(model, recipe.temperature, recipe.false_negative_margin)
        else:
            objective = contrastive(model, recipe.temperature)
        loss = Anchored(model, objective, base, recipe.anchor)
        return losses.MatryoshkaLoss(model, loss, list(recipe.dims)) if recipe.dims else loss

    def _arguments(self, fewest: int) -> SentenceTransformerTrainingArguments:
        recipe = self.recipe
        return SentenceTransformerTrainingArguments(
            output_dir=str(self.out / "checkpoints"),
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=min(recipe.batch_size, fewest),
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            weight_decay=0.0,
            use_cpu=self.model.device.type == "cpu",
            bf16=autocast_dtype(self.model.device) == torch.bfloat16,
            batch_sampler=TopicBatches if recipe.topic_batches else BatchSamplers.NO_DUPLICATES,
            dataloader_drop_last=True,
            eval_strategy="steps",
            eval_steps=recipe.evaluate_steps,
            eval_on_start=True,
            save_strategy="steps",
            save_steps=recipe.evaluate_steps,
            save_total_limit=_KEPT,
            load_best_model_at_end=True,
            metric_for_best_model="eval_score",
            restore_callback_states_from_checkpoint=True,
            logging_steps=1,
            report_to="none",
            seed=recipe.seed,
        )

    def train(self) -> None:
        """To the end, from the last checkpoint if there is one; then the best weights, the log and a plot are written.

        Raises:
            ValueError: a task that is watched has lost too much, or nothing was better than the start. The log is
                written all the same, and the best weights if they are better than the start.
        """
        checkpoints = self.out / "checkpoints"
        last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        if last:
            state = json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
            self.watch.start = _scores(state["log_history"][0])
        self.trainer.train(resume_from_checkpoint=last)
        best = self.best()
        if index() == 0:
            self.save()
        if self.watch.fallen:
            raise ValueError(self.watch.fallen)
        if best["step"] == 0:
            raise ValueError(
                f"no checkpoint scored above the start ({best['score']:.2f}), so none is kept: "
                "lower the learning rate, or give more data"
            )

    def log(self) -> list[dict[str, float]]:
        """What the trainer logged: losses by step, and the held-out scores."""
        return [row for row in self.trainer.state.log_history if "loss" in row or "eval_score" in row]

    def best(self) -> dict[str, float]:
        """The best held-out scores and their step; 0 is the start."""
        row = max((row for row in self.log() if "eval_score" in row), key=lambda row: row["eval_score"])
        return {"step": row["step"], **_scores(row)}

    def save(self) -> None:
        """Write `log.jsonl`, `run.json`, `scores.png`; if better than the start, `deltanet.safetensors` (float16)."""
        log, best = self.log(), self.best()
        if best["step"]:
            save(self.model[0].auto_model, self.out / "deltanet.safetensors")
        with replacing(self.out / "log.jsonl") as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
        write_json(
            self.out / "run.json",
            {
                **self.source,
                "recipe": asdict(self.recipe),
                "steps": self.trainer.state.global_step,
                "threads": torch.get_num_threads(),
                "device": self.model.device.type,
                "start_deltanet_sha256": self.model.manifest["deltanet_sha256"],
                "start": _scores(log[0]),
                "best": best,
                "stopped": self.watch.fallen or None,
            },
        )
        plot_tuning(log, self.out / "scores.png")


class _Trainer(OneBatch, SentenceTransformerTrainer):
    def override_model_in_loss(self, loss: torch.nn.Module, model: torch.nn.Module) -> torch.nn.Module:
        """The loss reads with the model itself, not with the wrapper that averages gradients: `OneBatch` adds them."""
        return loss


class _Stop(TrainerCallback):
    """Ends a run in which a task has lost too much."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.fallen = by_first(lambda: self.watch.fallen)  # of several processes, the first alone has watched
        control.should_training_stop = control.should_training_stop or bool(self.watch.fallen)


def _weighted(rows: Dataset, weight: float, recipe: TuneRecipe) -> Dataset:
    """The rows of an epoch: with 0.5 every second one, with 2 each of them twice."""
    whole, part = divmod(weight, 1)
    order = np.random.default_rng(recipe.seed).permutation(len(rows))[: round(part * len(rows))]
    return rows if weight == 1 else rows.select([*list(range(len(rows))) * int(whole), *np.sort(order)])


def _scores(row: dict[str, float]) -> dict[str, float]:
    skipped = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_loss")
    return {k.removeprefix("eval_"): v for k, v in row.items() if k.startswith("eval_") and k not in skipped}
