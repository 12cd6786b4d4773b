"""LAM on ONNX Runtime: numpy, tokenizers and onnxruntime are all it needs, neither torch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .folder import ONNX, check_files
from .texts import clean


def graph_file(base_only: bool = False, int8: bool = False) -> str:
    """Where in a model folder a graph lies."""
    return f"{ONNX}model{'_base' * base_only}{'_int8' * int8}.onnx"


class OnnxEncoder:
    """Texts of any length to unit vectors, read block by block in constant memory.

    Args:
        folder: a model folder with exported graphs (`lam export onnx`).
        file: the graph, within the folder.
        threads: of one call, within operators; all cores if None. Any number of callers may share one encoder.
        checked: compare the files with the folder's manifest; a graph that is still being written is not in it.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: naming the file that was altered or damaged.
        ImportError: onnxruntime or tokenizers is not installed.
    """

    def __init__(
        self, folder: str | Path, file: str = graph_file(), threads: int | None = None, checked: bool = True
    ) -> None:
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError(f"{error.name} is not installed: pip install 'lam-model[onnx]'") from error
        folder = Path(folder)
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing: write the graphs with `lam export onnx {folder}`")
        if checked:
            check_files(folder, [file, "tokenizer.json", "config.json"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # it warns of inputs that have defaults
        self._session = onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
        # What has to be given from the start on; the other `past_*` inputs have defaults and are not listed.
        self._past = {i.name: i.shape[1:] for i in self._session.get_inputs() if i.name.startswith("past_")}
        self._carried = [o.name for o in self._session.get_outputs() if o.name.startswith("present_")]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._block, self._pad = config["block_size"], config["pad_token_id"]
        self.dimension: int = config["hidden_size"]

    def encode(self, texts: str | Sequence[str], batch_tokens: int = 4096) -> np.ndarray:
        """Embed a text or texts.

        Args:
            texts: one string, or several.
            batch_tokens: most tokens that are read together, pads counted; a block of one text at least.

        Returns:
            Unit vectors, float32: (dimension,) for a string, (texts, dimension) for several.

        Raises:
            TypeError: something is not a string; the message says what, and at which index.
        """
        texts = clean(texts)
        if isinstance(texts, str):
            return self.encode([texts], batch_tokens)[0]
        vectors = np.empty((len(texts), self.dimension), np.float32)
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        for rows in _batches([len(ids) for ids in tokens], batch_tokens, self._block):
            longest = max(len(tokens[row]) for row in rows)
            ids = np.full((len(rows), longest), self._pad, np.int64)
            mask = np.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, : len(tokens[row])], mask[i, : len(tokens[row])] = tokens[row], 1
            vectors[rows] = self.embed(ids, mask)
        return vectors

    def embed(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Unit vectors (texts, dimension) of padded tokens, each (texts, length), block by block."""
        carried = {name: np.zeros((len(input_ids), *shape), np.float32) for name, shape in self._past.items()}
        length = input_ids.shape[1]
        for start in range(0, length, self._block):
            block = {
                "input_ids": input_ids[:, start : start + self._block],
                "attention_mask": attention_mask[:, start : start + self._block],
            }
            kept = self._carried if start + self._block < length else []
            vectors, *present = self._session.run(["sentence_embedding", *kept], block | carried)
            carried = {name.replace("present", "past"): value for name, value in zip(kept, present, strict=True)}
        return vectors


def _batches(lengths: Sequence[int], tokens: int, block: int) -> Iterator[list[int]]:
    """Rows of similar length, as many as keep a block of all of them within so many tokens."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        longest = min(block, lengths[rows[0]] if rows else lengths[row])
        if rows and (len(rows) + 1) * longest > tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
