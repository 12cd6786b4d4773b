"""What tuning minimises: a loss of sentence-transformers, and beside it the distance to the base's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from sentence_transformers.base.losses import CachedLossMixin
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn
from torch.nn import functional as F

from .processes import share, together
from .teacher import Teacher

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# of one batch: the vectors of each column, those of the base, labels
Objective = Callable[[list[Tensor], list[Tensor], "Tensor | None"], Tensor]
_REMEMBERED = 200_000  # vectors, 300 MB of MiniLM's


class BaseVectors:
    """The base's unit vectors of tokenised texts; those of a text that comes again are remembered."""

    def __init__(self, teacher: Teacher):
        self.teacher = teacher
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, features: dict[str, Tensor]) -> Tensor:
        """(batch, size) of `input_ids` and `attention_mask`, both (batch, length)."""
        ids, mask = features["input_ids"], features["attention_mask"]
        keys = [row[real.bool()].cpu().numpy().tobytes() for row, real in zip(ids, mask, strict=True)]
        unknown = [i for i, key in enumerate(keys) if key not in self._known]
        if unknown:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
                unknown = list(range(len(keys)))
            length = int(mask[unknown].sum(-1).max())
            pooled = self.teacher(ids[unknown, :length], mask[unknown, :length]).pooled.float()
            self._known.update(zip((keys[i] for i in unknown), pooled, strict=True))
        return torch.stack([self._known[key] for key in keys])


class Anchored(CachedLossMixin, nn.Module):
    """An objective plus `anchor` times (1 - cosine) to the base's vectors of the same texts.

    Gradients are cached (Gao et al., "Scaling Deep Contrastive Learning Batch Size", 2021): a step needs the memory of
    `mini_batch_tokens`, or of its longest text, whatever the batch.
    """

    mini_batch_size = 0  # the library wants one, but goes by `mini_batch_num_tokens` where that is set

    def __init__(
        self,
        model: SentenceTransformer,
        objective: Objective,
        base: BaseVectors,
        anchor: float,
        mini_batch_tokens: int = 8192,
    ):
        super().__init__()
        self.model, self.objective, self.anchor = model, objective, anchor
        self.mini_batch_num_tokens = mini_batch_tokens
        self._base_vectors = base
        self._base: list[Tensor] = []
        self._share = share(0)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        features = list(sentence_features)
        self._share = share(len(features[0]["input_ids"]))
        features = [
            {name: x[self._share.read] if isinstance(x, Tensor) else x for name, x in column.items()}
            for column in features
        ]
        self._base = [together(self._base_vectors(column), self._share) for column in features]
        return super().forward_cached(features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of a batch's vectors, a list of mini-batches for each column, perhaps cut to fewer dimensions."""
        columns = [together(torch.cat(column).float(), self._share) for column in reps]
        base = [F.normalize(column[:, : columns[0].shape[-1]], dim=-1) for column in self._base]
        loss = self.objective(columns, base, labels)
        if self.anchor:
            cosines = [F.cosine_similarity(x, y) for x, y in zip(columns, base, strict=True)]
            loss = loss + self.anchor * (1 - torch.cat(cosines).mean())
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss


def contrastive(model: SentenceTransformer, temperature: float) -> Objective:
    """A query's document against all other documents of the batch."""
    loss = losses.MultipleNegativesRankingLoss(model, scale=1 / temperature)
    return lambda columns, base, labels: loss.compute_loss_from_embeddings(columns, labels)


def guided(model: SentenceTransformer, temperature: float, margin: float) -> Objective:
    """The same, without documents that the base finds closer to the query than its own, by more than `margin`."""
    loss = losses.CachedGISTEmbedLoss(
        model, model, temperature, margin=-margin, contrast_anchors=False, contrast_positives=False
    )
    return lambda columns, base, labels: loss.calculate_loss([[x] for x in columns], [[x] for x in base])


def triplet(model: SentenceTransformer, margin: float = 0.2) -> Objective:
    """A query's document against each of its negatives, which must be farther by `margin` of cosine."""
    loss = losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, margin)

    def objective(columns: list[Tensor], base: list[Tensor], labels: Tensor | None) -> Tensor:
        query, positive, *negatives = columns
        return torch.stack([loss.compute_loss_from_embeddings([query, positive, x], labels) for x in negatives]).mean()

    return objective


def teacher_similarities(model: SentenceTransformer, temperature: float) -> Objective:
    """A stronger teacher's cosines of a query to its candidates, as a distribution over them."""
    loss = losses.DistillKLDivLoss(model, _cosines, temperature)
    # The library multiplies by the temperature's square, as if it were high; it is low here.
    return lambda columns, base, labels: loss.compute_loss_from_embeddings(columns, labels) / temperature**2


def near(temperature: float) -> Objective:
    """1 - cosine to the base's vectors of texts alone, scaled as the contrastive losses scale their cosines."""

    def objective(columns: list[Tensor], base: list[Tensor], labels: Tensor | None) -> Tensor:
        return (1 - F.cosine_similarity(torch.cat(columns), torch.cat(base)).mean()) / temperature

    return objective


def scored(model: SentenceTransformer) -> Objective:
    """The order of the pairs' scores (CoSENT)."""
    loss = losses.CoSENTLoss(model)
    return lambda columns, base, labels: loss.compute_loss_from_embeddings(columns, labels)


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    return F.cosine_similarity(x, y, dim=-1)
