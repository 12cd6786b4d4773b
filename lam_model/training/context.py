"""Context training: passages that know their document, by questions that one of its passages answers.

Each query is held against its own passage, the other passages of its document and those of documents on the same
topic. Beside it an anchor holds what is read without context near the base's vectors, so that short texts stay as they
are. The loop, checkpoints and exact resume are those of transformers' trainer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerControl, TrainingArguments, get_cosine_schedule_with_warmup
from transformers.trainer_utils import get_last_checkpoint

from ..evaluation.context import figures
from ..evaluation.context_sets import ContextSet
from ..files import replacing, write_json
from ..model.modeling_lam import LamModel
from ..reading.cutting import passage_offsets
from ..reading.passages import OF_BEFORE, OF_BEGINNING, encode_passages
from ..reading.tokenizing import plain_tokenizer
from ..reading.torch_reader import END, TorchReader, breaks_between, joined
from .context_steps import Step, Steps
from .distill import autocast_dtype
from .losses import BaseVectors
from .processes import OneBatch, Share, by_first, index, share, together
from .recipe import ContextRecipe
from .weights import save, train_only_deltanet, trained

_KEPT = 2  # checkpoints, the last ones
WATCHED_TOKENS = 80  # of a passage, where held-out questions are asked


def step_loss(
    model: LamModel, step: Step, base: BaseVectors, recipe: ContextRecipe
) -> tuple[Tensor, dict[str, Tensor]]:
    """InfoNCE over all passages of a step, any right one counted as right, and the anchor to the base's vectors."""
    parts, numbers = _part_vectors(model, step.documents)
    passages = _in_document(parts, numbers) if step.context else parts
    asked, _ = _part_vectors(model, [[query] for query in step.queries])
    right = torch.from_numpy(step.right).to(passages.device)
    cosines = asked @ passages.T / recipe.temperature
    loss = cosines.logsumexp(1) - cosines.masked_fill(~right, -torch.inf).logsumexp(1)
    beside, _ = _part_vectors(model, [[text] for text in step.texts])
    alone, tokens = [asked, beside], [*step.queries, *step.texts]
    if not step.context:
        alone.insert(1, passages)
        tokens = [*step.queries, *(parts[0] for parts in step.documents), *step.texts]
    distance = 1 - F.cosine_similarity(torch.cat(alone), _base_vectors(base, tokens, passages.device)).mean()
    contrast = loss.mean()
    return contrast + recipe.anchor * distance, {"contrast": contrast.detach(), "distance": distance.detach()}


def _in_document(parts: Tensor, numbers: Tensor) -> Tensor:
    """The vectors of passages in their documents, (passages, size), from those of parts of which 0 is the beginning."""
    beginning = parts[torch.arange(len(parts), device=parts.device) - numbers]
    before = parts.roll(1, 0) * (numbers > 1)[:, None]
    return F.normalize((parts + OF_BEFORE * before + OF_BEGINNING * beginning)[numbers > 0], dim=-1)


def _part_vectors(model: LamModel, documents: Sequence[Sequence[Sequence[int]]]) -> tuple[Tensor, Tensor]:
    """The unit vectors of the parts of documents, (parts, size), and each part's number within its document."""
    device = model.device
    lengths = torch.tensor([len(parts) for parts in documents], device=device)
    starts = lengths.cumsum(0) - lengths
    mine = share(len(documents))
    ids, numbers = zip(*(joined(documents[i]) for i in mine.read), strict=True)
    tokens = pad_sequence(list(ids), True, model.config.pad_token_id).to(device)
    number = pad_sequence(list(numbers), True, END).to(device)
    real = number >= 0
    counts = lengths[mine.read]
    hidden = model.forward_block(tokens, real.long(), breaks=breaks_between(number)).last_hidden_state
    assert hidden is not None
    begins = counts.cumsum(0) - counts
    with torch.autocast(device.type, enabled=False):
        sums = hidden.new_zeros(int(counts.sum()), hidden.shape[-1], dtype=torch.float32)
        sums = sums.index_add(0, (number + begins[:, None])[real], hidden[real].float())
    rows = [int(starts[i]) + part for i in mine.rows for part in range(len(documents[i]))]
    vectors = together(F.normalize(sums, dim=-1), Share(rows, rows, int(lengths.sum())))
    return vectors, torch.arange(len(vectors), device=device) - starts.repeat_interleave(lengths)


def _base_vectors(base: BaseVectors, texts: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    mine = share(len(texts))
    texts = [texts[i] for i in mine.read]
    ids = pad_sequence([torch.tensor(text) for text in texts], True, 0).to(device)
    lengths = torch.tensor([len(text) for text in texts], device=device)
    mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
    return together(base({"input_ids": ids, "attention_mask": mask}), mine)


class Watched:
    """What a run is watched by: questions about documents, and texts of each genre, that are held out.

    Args:
        sets: by name; questions are asked among the passages of all documents of a set.
        genres: texts by genre, and the base's vectors of them.
        size: most tokens of a passage.
    """

    def __init__(
        self, sets: dict[str, ContextSet], genres: dict[str, tuple[list[str], np.ndarray]], size: int = WATCHED_TOKENS
    ) -> None:
        self._sets, self._genres, self._size = sets, genres, size

    def scores(self, model: SentenceTransformer) -> dict[str, float]:
        """In percent: nDCG@10 in the document, `NAME`, and alone, `NAME_alone`; the cosine of each genre and the worst.

        `score` is the mean over the sets of the questions' nDCG@10 in the document, among all passages and within it.
        """
        found: dict[str, float] = {}
        both = []
        reader = TorchReader(model)
        for name, one in self._sets.items():
            asked = _encode(model, [question.query for question in one.questions])
            texts, titles = [d.text for d in one.documents], [d.title for d in one.documents]
            offsets = passage_offsets(plain_tokenizer(model.tokenizer), texts, self._size)
            for context in (True, False):
                read = encode_passages(reader, texts, self._size, titles=titles, context=context)
                vectors = np.concatenate([passages.vectors for passages in read])
                figure = figures([asked @ vectors.T], one.questions, offsets)
                found[name if context else f"{name}_alone"] = figure["all"]
                found[f"{name}_within" if context else f"{name}_alone_within"] = figure["within"]
            both += [found[name], found[f"{name}_within"]]
        cosines = {
            name: 100 * float((_encode(model, texts) * base).sum(1).mean())
            for name, (texts, base) in self._genres.items()
        }
        worst = {"cosine_worst": min(cosines.values())} if cosines else {}
        found |= {f"cosine_{name}": cosine for name, cosine in cosines.items()} | worst
        return {name: round(x, 4) for name, x in (found | {"score": float(np.mean(both))}).items()}


def _encode(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    return model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)


class ContextTraining(OneBatch, Trainer):
    """One run in a folder: checkpoints to go on from, `log.jsonl`, `deltanet.safetensors`, `run.json`.

    Args:
        model: to be trained.
        base: the anchor.
        source: versions, data and command, for `run.json`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        base: BaseVectors,
        steps: Steps,
        watched: Watched,
        out: Path,
        recipe: ContextRecipe,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.out, self.recipe, self.source = out, recipe, source or {}
        self._whole, self._base, self._watched = model, base, watched
        self._parts: dict[str, Tensor] = {}
        out.mkdir(parents=True, exist_ok=True)
        path = out / "recipe.json"
        chosen = json.loads(json.dumps(asdict(recipe)))
        if path.is_file() and (there := json.loads(path.read_text(encoding="utf-8"))) != chosen:
            raise ValueError(f"{out} holds a run of another recipe ({there}): go on with that, or take another folder")
        if index() == 0:
            write_json(path, chosen)
        lam = model[0].auto_model
        train_only_deltanet(lam)
        carry = [p for name, p in trained(lam).items() if name.endswith(".carry")]
        others = [p for name, p in trained(lam).items() if not name.endswith(".carry")]
        if recipe.carry:
            with torch.no_grad():
                for factors in carry:
                    factors.copy_(torch.tensor(recipe.carry)[:, None].expand_as(factors))
        groups: list[dict[str, Any]] = [{"params": others}, {"params": carry, "lr": recipe.carry_rate}]
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        arguments = TrainingArguments(
            output_dir=str(out / "checkpoints"),
            max_steps=recipe.steps,
            per_device_train_batch_size=1,
            max_grad_norm=1.0,
            use_cpu=lam.device.type == "cpu",
            bf16=autocast_dtype(lam.device) == torch.bfloat16,
            eval_strategy="steps",
            eval_steps=recipe.evaluate_steps,
            eval_on_start=True,
            save_strategy="steps",
            save_steps=recipe.evaluate_steps,
            save_total_limit=_KEPT,
            logging_steps=5,
            remove_unused_columns=False,
            report_to="none",
            seed=recipe.seed,
        )
        schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
        super().__init__(lam, arguments, lambda rows: {"step": rows[0]}, steps, steps, optimizers=(optimizer, schedule))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """See `step_loss`."""
        # With the model itself, not with the wrapper that averages gradients: `OneBatch` adds them.
        loss, self._parts = step_loss(self.model, inputs["step"], self._base, self.recipe)
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The scores of held-out questions and texts, each with `eval_` before its name."""
        self._whole.eval()
        found = by_first(lambda: self._watched.scores(self._whole))
        scores = {f"eval_{name}": score for name, score in found.items()}
        self.log(scores)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the library's, with the parts of the last step's loss."""
        if "loss" in logs:
            logs = logs | {name: round(float(part), 5) for name, part in self._parts.items()}
        super().log(logs, *args, **kwargs)

    def run(self) -> None:
        """To the end, from the last checkpoint if there is one; then weights, log and `run.json` are written."""
        checkpoints = self.out / "checkpoints"
        last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        self.train(resume_from_checkpoint=last)
        if index():
            return  # the first process writes
        save(self.model, self.out / "deltanet.safetensors")
        log = [row for row in self.state.log_history if "loss" in row or "eval_score" in row]
        with replacing(self.out / "log.jsonl") as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
        evaluated = [row for row in log if "eval_score" in row]
        summary = {**self.source, "recipe": asdict(self.recipe), "start": evaluated[0], "final": evaluated[-1]}
        write_json(self.out / "run.json", summary)
