"""LAM on ONNX Runtime: numpy, tokenizers and onnxruntime are all it needs, neither torch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .texts import clean


class OnnxEncoder:
    """Texts of any length to unit vectors, read block by block in constant memory.

    Args:
        folder: a model folder with exported graphs (`lam export onnx`).
        file: the graph, within the folder.
        threads: of one call, within operators; all cores if None. Any number of callers may share one encoder.

    Raises:
        FileNotFoundError: naming the file that is missing.
    """

    def __init__(self, folder: str | Path, file: str = "onnx/model.onnx", threads: int | None = None):
        import onnxruntime
        from tokenizers import Tokenizer

        paths = {name: Path(folder) / name for name in (file, "tokenizer.json", "config.json")}
        for path in paths.values():
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: write the graphs with `lam export onnx {folder}`")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # it warns of inputs that have defaults
        self._session = onnxruntime.InferenceSession(paths[file], options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._carried = [name for name in self._outputs if name.startswith("present_")]
        self._tokenizer = Tokenizer.from_file(str(paths["tokenizer.json"]))
        config = json.loads(paths["config.json"].read_text(encoding="utf-8"))
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
        tokens = [np.array(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]
        for rows in _batches([len(ids) for ids in tokens], batch_tokens, self._block):
            vectors[rows] = self._embed([tokens[row] for row in rows])
        return vectors

    def _embed(self, tokens: list[np.ndarray]) -> np.ndarray:
        longest = max(map(len, tokens))
        ids = np.full((len(tokens), longest), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        carried: dict[str, np.ndarray] = {}
        names = ["sentence_embedding", *self._carried]
        for start in range(0, longest, self._block):
            block = {
                "input_ids": ids[:, start : start + self._block],
                "attention_mask": mask[:, start : start + self._block],
            }
            vectors, *present = self._session.run(names, block | carried)
            carried = {
                name.replace("present", "past"): value for name, value in zip(self._carried, present, strict=True)
            }
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
