"""`Stream`: a text read piece by piece in constant memory, with its vector at any moment."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..texts import clean
from .reader import State, reader_of

if TYPE_CHECKING:
    from tokenizers import Encoding

_SLICE = 4096  # characters that are tokenised at once, of a piece of any size
_LETTER = "a"  # joins an unfinished word, and nothing else


class _Read(NamedTuple):
    """What is left of the tokens read: enough to go on."""

    state: State
    total: np.ndarray  # sum of the tokens' last hidden states, (size,), float64
    length: int  # number of the tokens


class Stream:
    """Reads a text in pieces, cut anywhere, and gives the vector that `model.encode` gives of the whole.

        stream = lam_model.Stream(model)
        for piece in pieces:
            stream.feed(piece)
        vector = stream.vector()

    It holds the states after the first block and the last, the tokens of the running block (read again for each vector,
    for right to left they depend on what is still to come) and a word that may go on: memory does not grow with the
    text. A limit that `model.max_seq_length` sets is not for streams.

    Args:
        model: as from `lam_model.load`, or an `OnnxEncoder`. Any number of streams may share it.

    Raises:
        TypeError: the model is not a LAM.
        ValueError: its pooling is not the mean.
    """

    def __init__(self, model: Any):
        self._reader = reader_of(model)
        self._tokenizer, self._dim = self._reader.tokenizer, model.truncate_dim
        # A word over the limit of WordPiece is one unknown token, whatever it goes on with.
        self._word_limit = self._tokenizer.model.max_input_chars_per_word
        special = [token.content.lower() for token in self._tokenizer.get_added_tokens_decoder().values()]
        self._special_starts = {token[:i] for token in special for i in range(1, len(token))}
        self._longest_start = max(map(len, self._special_starts), default=0)
        self._read = _Read(None, np.zeros(self._reader.dimension), 0)
        cls, self._sep = self._tokenizer.encode("").ids
        self._tokens: list[int] = [cls]
        self._pending = ""  # text whose tokens depend on what is still to come

    def feed(self, text: str) -> None:
        """Read on.

        Args:
            text: the next piece, of any length, cut anywhere: within a word, an accent or `[SEP]` too.

        Raises:
            TypeError: it is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"a stream is fed strings, not {type(text).__name__}")
        for start in range(0, len(text), _SLICE):
            self._pending += text[start : start + _SLICE]
            self._read_finished_words()

    def feed_tokens(self, ids: Sequence[int]) -> None:
        """Read on with tokens of the model's vocabulary, without [CLS] and [SEP] around them.

        A word of text that was fed before is finished by them.

        Raises:
            ValueError: there is no token of such an id.
        """
        ids, size = [int(i) for i in ids], self._tokenizer.get_vocab_size()
        if wrong := [i for i in ids if not 0 <= i < size]:
            raise ValueError(f"token ids are from 0 to {size - 1}: {wrong[0]} is not one")
        self._read_tokens(self._tokenize(clean(self._pending)))
        self._pending = ""
        self._read_tokens(ids)

    def vector(self) -> np.ndarray:
        """The unit vector of all that was read so far, float32 (size,); reading may go on after it."""
        tokens = [*self._tokens, *self._tokenize(clean(self._pending)), self._sep]
        read, size = self._read, self._reader.block_size
        for start in range(0, len(tokens), size):
            read = self._read_block(read, tokens[start : start + size])
        total = read.total[: self._dim]
        return (total / np.linalg.norm(total)).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """All that a stream holds, for `load_state_dict`: numbers, strings and arrays.

        The arrays are tensors with a model in torch, for `torch.save`, and numpy's with one on ONNX Runtime. Streams of
        both load either kind.
        """
        state, array = self._read.state, self._reader.array
        return {
            "weights": self._reader.weights,
            "state": None if state is None else array(state),
            "total": array(self._read.total),
            "count": self._read.length,
            "tokens": list(self._tokens),
            "pending": self._pending,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from where another stream was.

        Args:
            state_dict: as from `state_dict`.

        Raises:
            ValueError: it is not of a stream of this model.
        """
        if not isinstance(state_dict, dict) or state_dict.keys() != self.state_dict().keys():
            raise ValueError("state_dict is not one of a Stream: give what Stream.state_dict() returned")
        total, state = np.asarray(state_dict["total"]).astype(np.float64), state_dict["state"]
        if state_dict["weights"] != self._reader.weights or total.shape != self._read.total.shape:
            raise ValueError("state_dict is of a stream of another model: load the model that it was made with")
        if state is not None:
            state = np.asarray(state).astype(np.float32)
        self._read = _Read(state, total, state_dict["count"])
        self._tokens = list(state_dict["tokens"])
        self._pending = state_dict["pending"]

    def _read_finished_words(self) -> None:
        # Half a surrogate pair may be completed.
        half = self._pending[-1:] if "\ud800" <= self._pending[-1:] <= "\udbff" else ""
        text = clean(self._pending.removesuffix(half))
        start = self._special_start(text)
        probed = text + _LETTER
        encoded = self._encode(probed)
        words = encoded.word_ids
        begins: dict[int | None, int] = {}
        for word, (begin, _) in zip(words, encoded.offsets, strict=True):
            begins.setdefault(word, begin)
        # The last word holds the letter. All before it is finished, but for what may become a special token.
        cut = max((begin for begin in begins.values() if begin <= start), default=0)
        while cut and unicodedata.combining(probed[cut]):
            cut -= 1  # marks that begin a word are sorted: it may begin with a later one
        self._read_tokens([i for i, word in zip(encoded.ids, words, strict=True) if begins[word] < cut])
        text, start = text[cut:], start - cut
        if len(text) > self._word_limit:
            normalised = self._tokenizer.normalizer.normalize_str(text[:start])
            text = normalised[: self._word_limit + 1] + text[start:]
        self._pending = text + half

    def _special_start(self, text: str) -> int:
        """Where the end of the text may be the beginning of a special token; its length if nowhere."""
        for start in range(max(0, len(text) - self._longest_start), len(text)):
            if text[start:].lower() in self._special_starts:
                return start
        return len(text)

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _tokenize(self, text: str) -> list[int]:
        return self._encode(text).ids

    def _read_tokens(self, ids: Sequence[int]) -> None:
        self._tokens += ids
        size = self._reader.block_size
        while len(self._tokens) >= size:
            self._read = self._read_block(self._read, self._tokens[:size])
            del self._tokens[:size]

    def _read_block(self, read: _Read, tokens: list[int]) -> _Read:
        (sums,), (state,) = self._reader.read([[tokens]], [read.state], first=read.length == 0)
        return _Read(state, read.total + sums[0], read.length + len(tokens))
