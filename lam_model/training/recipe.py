"""How to distil and how to tune: the numbers of a run, all that its command line can change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Recipe:
    """How to distil. Lengths of stages and of the warm-up are in tokens read, pads not counted."""

    stage1_tokens: int = _option(1_100_000, "tokens that each layer learns from by itself")
    stage2_tokens: int = _option(10_000_000, "tokens that all layers learn from end to end")
    stage1_lr: float = _option(4e-3, "highest learning rate of stage 1")
    stage2_lr: float = _option(5e-4, "highest learning rate of stage 2")
    warmup_tokens: int = _option(150_000, "tokens over which the learning rate rises, in each stage")
    pooled_weight: float = _option(5.0, "weight of 1 - cosine of the pooled vectors, beside the hidden states' error")
    batch_tokens: int = _option(4096, "most tokens in a batch, pads counted")
    long_share: float = _option(0.15, "share of stage 2's tokens from texts of several blocks")
    long_tokens: int = _option(2048, "longest text, longer ones are cut")
    block_halvings: int = _option(3, "texts of several blocks are read in blocks halved up to so many times, at random")
    repeat_share: float = _option(0.25, "share of these texts that begin with a passage over and over, as logs do")
    phrase_share: float = _option(0.2, "share of short texts of which a few words are read as a text too")
    evaluate_tokens: int = _option(1_000_000, "tokens between two evaluations on held-out texts")
    seed: int = _option(0, "of the order of the texts")


@dataclass(frozen=True)
class TuneRecipe:
    """How to tune."""

    epochs: float = _option(2.0, "times that all data are read")
    batch_size: int = _option(16, "queries or pairs in a batch")
    learning_rate: float = _option(1.2e-4, "the highest; a cosine down to zero")
    warmup_steps: int = _option(10, "steps over which the learning rate rises")
    loss: str = _option(
        "contrastive",
        "of retrieval: a query's document against all others of the batch; against its negatives alone; or the "
        "cosines of --teacher (of scored pairs: the order of its cosines)",
        choices=("contrastive", "triplet", "teacher"),
    )
    temperature: float = _option(0.05, "that cosines are divided by")
    negatives: int = _option(3, "hard negatives of each query; 0: only the other queries' documents")
    false_negative_margin: float | None = _option(
        None,
        "by which the base must find a document closer to a query than the query's own, to be taken for an unjudged "
        "answer; not asked unless given",
        type=float,
    )
    topic_batches: bool = _option(False, "batches of neighbouring queries")
    anchor: float = _option(
        0.5, "weight of 1 - cosine to the base's vectors; with scored pairs it takes 20 to hold them"
    )
    dims: tuple[int, ...] = _option((), "sizes of vectors to train for at once (Matryoshka)", type=int, nargs="+")
    max_tokens: int = _option(256, "texts are cut at so many")
    evaluate_steps: int = _option(20, "steps between two evaluations, with a checkpoint each")
    patience: int = _option(10, "evaluations without a better one that end a run")
    max_loss: float = _option(1.0, "points that a watched task may lose")
    seed: int = _option(0, "of held-out queries, negatives and batches")

    def __post_init__(self) -> None:
        if self.loss == "triplet" and not self.negatives:
            raise ValueError("--loss triplet needs negatives: give --negatives 1 or more")
        if self.loss == "teacher" and self.negatives < 1:
            raise ValueError("--loss teacher compares candidates: give --negatives 1 or more")


@dataclass(frozen=True)
class ContextRecipe:
    """How to train passages to know their document."""

    steps: int = _option(800, "steps")
    learning_rate: float = _option(1e-4, "the highest; a cosine down to zero")
    carry_rate: float = _option(1e-2, "the same of the factors of carried states")
    carry: tuple[float, ...] = _option(
        (),
        "factors of the states of the beginning and of the passage before that all heads start from, such as 0.7 0.5, "
        "instead of the weights' own: distillation teaches to carry nothing",
        type=float,
        nargs=2,
    )
    warmup_steps: int = _option(20, "steps over which the learning rate rises")
    temperature: float = _option(0.05, "that cosines are divided by")
    step_documents: int = _option(4, "documents on one topic in a step")
    step_pairs: int = _option(24, "queries on one topic in a step without documents")
    asked: float = _option(0.4, "share of steps with people's questions about documents, and headings")
    made_up: float = _option(0.35, "share of steps with queries made of a passage's words")
    answered: float = _option(0.25, "share of steps with queries and passages that are part of no document")
    anchor: float = _option(4.0, "weight of 1 - cosine to the base's vectors of texts without context")
    anchor_passages: int = _option(8, "passages of a step that are read without context too")
    anchor_texts: int = _option(12, "plain texts of a step")
    evaluate_steps: int = _option(100, "steps between two evaluations, with a checkpoint each")
    seed: int = _option(0, "of the steps")
