"""Training text: rows of parquet, jsonl or Hub datasets, guarded, shuffled, tokenised as needed, in batches.

The order of the batches is a function of the seed alone, and a position in it is three numbers: so a killed
run goes on exactly where its checkpoint was written.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..files import kind, open_text, utf8

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame
    from transformers import PreTrainedTokenizerBase

HELD_OUT = 512  # one text of so many is never trained on: it measures
_DOCUMENT_CHARS = 8_000  # of texts over so many characters
_HELD_OUT_DOCUMENTS = 16  # one of so many, for retrieval among them
_CHARS_PER_TOKEN = 6  # more characters than so many a token of one block make a text long
_PHRASE_WORDS = 6  # at most
_REPEATED_TOKENS = 128  # at most
_POOL_BATCHES = 64  # batches that are tokenised, sorted by length and cut together
_FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}  # of files, by what their names say
NOT_TEXT = {"source", "id", "_id", "licence", "license", "url", "split", "genre"}  # columns


def normalise(text: str) -> str:
    """The form in which a training text is compared with the guard list."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def read_guard(path: Path) -> frozenset[str]:
    """Evaluation texts that no training text may equal: one normalised text a line, plain or .xz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8, or no .xz file; the message names it.
    """
    data = path.read_bytes()
    try:
        data = lzma.decompress(data) if path.suffix.lower() == ".xz" else data
    except lzma.LZMAError as error:
        raise ValueError(f"{path} cannot be read as xz ({error}): compress it again") from error
    with utf8(path):
        return frozenset(data.decode("utf-8-sig").splitlines())


def read_texts(sources: Iterable[str]) -> Dataset:
    """All columns of strings of some datasets as rows of (text, column, genre).

    A list of strings, such as the sections of a document, is one text. The genre is what a column of that name says of
    a row, or None.

    Args:
        sources: paths of .parquet or .jsonl files, or dataset names on the Hub (their train split).

    Raises:
        FileNotFoundError: there is no such file or name.
        ValueError: a file is not what its name says, or has no column of text; the message names it.
    """
    from datasets import Value, concatenate_datasets, load_dataset

    parts = []
    for source in sources:
        rows = _read_file(source) if kind(Path(source)) in _FORMATS else load_dataset(source, split="train")
        kinds = {c: getattr(getattr(f, "feature", f), "dtype", "") for c, f in rows.features.items()}
        columns = [c for c, dtype in kinds.items() if dtype.endswith("string") and c not in NOT_TEXT]
        if not columns:
            raise ValueError(f"{source} has no column of text: its columns are {', '.join(rows.column_names)}")
        for column in columns:
            part = rows.select_columns([column]).add_column("column", [column] * len(rows))
            genre = rows["genre"][:] if "genre" in rows.column_names else [None] * len(rows)
            part = part.add_column("genre", genre, feature=Value("string"))
            if not hasattr(rows.features[column], "dtype"):
                part = part.map(
                    lambda row, name: {name: "\n".join(filter(None, row[name] or []))}, fn_kwargs={"name": column}
                )
            part = part if column == "text" else part.rename_column(column, "text")
            parts.append(part.cast_column("text", Value("large_string")))
    return concatenate_datasets(parts)


def _read_file(source: str) -> Dataset:
    from datasets import load_dataset

    path, form = Path(source), _FORMATS[kind(Path(source))]
    if form == "json" and path.is_file():
        with open_text(path) as lines:  # of text that is not UTF-8, `datasets` says something else
            if not lines.readline():
                raise ValueError(f"{source} is empty: give texts to train on")
    try:
        return load_dataset(form, data_files=source, split="train")
    except OSError:  # it is not there, or the disk is full
        raise
    except Exception as error:  # of `datasets` and pyarrow, some of no class of Python's
        cause = error.__cause__ or error
        if isinstance(cause, OSError):
            raise cause from error
        raise ValueError(f"{source} cannot be read as {form} ({cause}): mend it, or write it again") from error


def is_held_out(text: str) -> bool:
    """Whether a text is kept for measuring: a property of the text alone, the same in every run."""
    return _checksum(text) % HELD_OUT == 0


def is_held_out_document(text: str) -> bool:
    """Likewise for long documents, of which retrieval needs more than one text in `HELD_OUT`."""
    return len(text) > _DOCUMENT_CHARS and _checksum(text) % _HELD_OUT_DOCUMENTS == 0


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


@dataclass
class Position:
    """Where a run is in its data: what its pool of texts starts with, and the pool's next batch.

    `guarded` and `held_out` count the texts that were left out before this pool.
    """

    short: int = 0
    long: int = 0
    batch: int = 0
    guarded: int = 0
    held_out: int = 0


@dataclass
class Batches:
    """Batches of token ids, endless and reproducible.

    Args:
        texts: rows with a `text`, as from `read_texts`.
        tokenizer: a fast tokenizer; texts get its special tokens.
        block_size: short texts are cut at one block.
        tokens: the most tokens of a batch, pads counted.
        long_share: the share of all tokens that come from texts of more than one block.
        long_tokens: a long text is cut into spans of at most so many tokens.
        phrase_share: of so many short texts, a few words are read as a text too.
        repeat_share: so many long texts begin with a passage over and over.
        guard: normalised texts to leave out.
        seed: of the order.
    """

    texts: Dataset
    tokenizer: PreTrainedTokenizerBase
    block_size: int
    tokens: int = 4096
    long_share: float = 0.15
    long_tokens: int = 2048
    phrase_share: float = 0.0
    repeat_share: float = 0.0
    guard: frozenset[str] = frozenset()
    seed: int = 0
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        import pyarrow.compute as pc

        chars = pc.fill_null(pc.utf8_length(self.texts.data.column("text").combine_chunks()), 0).to_numpy()
        is_long = chars > _CHARS_PER_TOKEN * self.block_size
        self.guarded, self.held_out = self.position.guarded, self.position.held_out
        order = np.random.default_rng(self.seed).permutation(len(chars))
        self._short, self._long = order[~is_long[order]], order[is_long[order]]
        if not len(self._short):
            raise ValueError("the data has no texts of one block: training needs short texts too")
        if not len(self._long):
            self.long_share = 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (input_ids, attention_mask), each (batch, length)."""
        while True:
            short, long = self.position.short, self.position.long
            self.guarded, self.held_out = self.position.guarded, self.position.held_out
            wanted = self.tokens * _POOL_BATCHES
            pool, short = self._take(self._short, short, wanted * (1 - self.long_share), self.block_size, read=64)
            if self.long_share:
                spans, long = self._take(self._long, long, wanted * self.long_share, self.long_tokens, read=1)
                pool += spans
            batches = self._cut(pool, np.random.default_rng([self.seed, short, long]))
            for batch in batches[self.position.batch :]:
                self.position.batch += 1
                yield self._pad(batch)
            self.position = Position(short, long, 0, self.guarded, self.held_out)

    def _take(self, order: np.ndarray, start: int, wanted: float, cut: int, read: int) -> tuple[list[list[int]], int]:
        """Token ids of texts from `start` in `order`, `read` rows at a time, until there are as many as wanted."""
        taken: list[list[int]] = []
        total = 0
        begun = start
        while total < wanted:
            if start - begun > 2 * len(order) and not taken:
                raise ValueError("the data has no text to train on: all are empty, guarded or held out")
            rng = np.random.default_rng([self.seed, start])
            rows = order.take(range(start, start + read), mode="wrap")
            start += len(rows)
            texts = list(filter(self._usable, self.texts[rows]["text"]))
            if cut == self.block_size:
                texts += filter(self._usable, [_phrase(t, rng) for t in texts if rng.random() < self.phrase_share])
            for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []:
                spans = [ids[i : i + cut - 2] for i in range(0, len(ids), cut - 2)]
                if cut == self.block_size:
                    spans = spans[:1]
                elif len(spans) > 1 and len(spans[-1]) < self.block_size:
                    spans.pop()
                if cut > self.block_size and rng.random() < self.repeat_share:
                    spans[0] = _repeating(spans[0], rng)
                for span in spans:
                    taken.append([self.tokenizer.cls_token_id, *span, self.tokenizer.sep_token_id])
                    total += len(taken[-1])
        return taken, start

    def _usable(self, text: str | None) -> bool:
        if not text or not text.strip():
            return False
        if is_held_out(text) or is_held_out_document(text):
            self.held_out += 1
            return False
        if self.guard and normalise(text) in self.guard:
            self.guarded += 1
            return False
        return True

    def _cut(self, pool: list[list[int]], rng: np.random.Generator) -> list[list[list[int]]]:
        pool.sort(key=len)
        batches: list[list[list[int]]] = [[]]
        for ids in pool:
            # The new text is the longest: the batch would be padded to its length.
            if batches[-1] and len(ids) * (len(batches[-1]) + 1) > self.tokens:
                batches.append([])
            batches[-1].append(ids)
        rng.shuffle(batches)
        return batches

    def _pad(self, batch: list[list[int]]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(ids) for ids in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def _phrase(text: str, rng: np.random.Generator) -> str:
    """A few successive words of a text."""
    words = text.split()
    start, count = rng.integers(len(words)), rng.integers(1, _PHRASE_WORDS + 1)
    return " ".join(words[start : start + count])


def _repeating(ids: list[int], rng: np.random.Generator) -> list[int]:
    """A text whose beginning, of a random length, is its first few tokens over and over."""
    few, until = rng.integers(1, _REPEATED_TOKENS + 1), rng.integers(len(ids) + 1)
    return (ids[:few] * (until // few + 1))[:until] + ids[until:]


def held_out_texts(texts: Dataset, guard: frozenset[str], count: int, long_chars: int | None = None) -> list[str]:
    """Texts that are never trained on, evenly from all columns (queries and documents), in the files' order.

    Args:
        long_chars: only texts of at least so many characters.
    """
    frame = _held_out(texts, guard)
    if long_chars:
        frame = frame[frame["text"].str.len() >= long_chars]
    # One of each column in turn, as long as there are any.
    turn = frame.groupby("column").cumcount()
    return frame.loc[turn.sort_values(kind="stable").index, "text"].tolist()[:count]


def held_out_genres(texts: Dataset, guard: frozenset[str]) -> dict[str, list[str]]:
    """The texts of each genre that are never trained on, by genre, in the files' order."""
    frame = _held_out(texts, guard).dropna(subset="genre")
    return {str(genre): rows["text"].tolist() for genre, rows in frame.groupby("genre")}


def _held_out(texts: Dataset, guard: frozenset[str]) -> DataFrame:
    frame = texts.to_pandas().dropna(subset="text")
    frame = frame[frame["text"].map(lambda t: bool(t.strip()) and is_held_out(t))]
    return frame[~frame["text"].map(normalise).isin(guard)].drop_duplicates("text")
