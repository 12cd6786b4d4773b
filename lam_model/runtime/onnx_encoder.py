"""LAM on ONNX Runtime: numpy, tokenizers and onnxruntime are all it needs, neither torch nor transformers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..folder.manifest import ONNX, check_files
from ..model.batching import CPU, alike
from ..texts import clean

_LEFT_BEHIND: list[Any] = []  # sessions of a process that forked: their threads are not here, to end one would hang


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
        from ..reading.tokenizing import unlimited

        self._arguments = (folder, file, threads, checked)
        folder = Path(folder)
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing: write the graphs with `lam export onnx {folder}`")
        if checked:
            check_files(folder, [file, "tokenizer.json", "config.json"])
        self._options = options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # it warns of inputs that have defaults
        options.enable_mem_pattern = False  # it keeps a plan for every shape that comes by
        self._graph = folder / file
        self._begin()
        # What has to be given from the start on; the other `past_*` inputs have defaults and are not listed.
        self._past = {i.name: i.shape[1:] for i in self._session.get_inputs() if i.name.startswith("past_")}
        self._carried = [o.name for o in self._session.get_outputs() if o.name.startswith("present_")]
        self._tokenizer = unlimited(Tokenizer.from_file(str(folder / "tokenizer.json")))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._block, self._pad = config["block_size"], config["pad_token_id"]
        self.dimension: int = config["hidden_size"]

    def encode(self, texts: str | Sequence[str], batch_tokens: int = CPU["most"]) -> np.ndarray:
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
        tokens = self.tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        blocks = [min(len(tokens[i]), self._block) for i in order]
        for group in alike(blocks, **CPU | {"most": batch_tokens}):
            vectors[order[group]] = self.embed_tokens([tokens[i] for i in order[group]], batch_tokens)
        return vectors

    def tokenize(self, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
        """The token ids of each text, [CLS] and [SEP] among them; at most so many, if there is a limit."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        if limit is None:
            return tokens
        return [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in tokens]

    def embed(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Unit vectors (texts, dimension) of tokens that are padded on the right, each (texts, length)."""
        lengths = attention_mask.sum(1)
        return self.embed_tokens([ids[:length] for ids, length in zip(input_ids, lengths, strict=True)])

    def embed_tokens(self, tokens: Sequence[Sequence[int]], batch_tokens: int = CPU["most"]) -> np.ndarray:
        """Unit vectors (texts, dimension) of the token ids of texts, block by block; one that has ended is left out."""
        vectors = np.zeros((len(tokens), self.dimension), np.float32)
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        lengths = [len(tokens[i]) for i in order]
        carried: dict[str, np.ndarray] = {}
        for start in range(0, max(lengths, default=0), self._block):
            left = [min(length - start, self._block) for length in lengths if length > start]
            going_on = sum(length > start + self._block for length in lengths)
            after = []
            for group in alike(left, **CPU | {"most": batch_tokens}):
                rows = order[group]
                past = {name: values[group] for name, values in carried.items()} or self._nothing(len(rows))
                kept = self._carried if group.start < going_on else []
                block = self._padded([tokens[row][start : start + self._block] for row in rows])
                vectors[rows], *present = self._running().run(["sentence_embedding", *kept], block | past)
                after += [present] if kept else []
            names = [name.replace("present", "past") for name in self._carried]
            carried = {
                name: np.concatenate(parts) for name, parts in zip(names, zip(*after, strict=True), strict=False)
            }
        return vectors

    def _nothing(self, texts: int) -> dict[str, np.ndarray]:
        return {name: np.zeros((texts, *shape), np.float32) for name, shape in self._past.items()}

    def _padded(self, rows: list[Sequence[int]]) -> dict[str, np.ndarray]:
        ids = np.full((len(rows), max(map(len, rows))), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask}

    def _begin(self) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(self._graph, self._options, providers=["CPUExecutionProvider"])
        self._process = os.getpid()

    def _running(self) -> Any:
        """The session, in this process: a fork has none of its threads."""
        if self._process != os.getpid():
            _LEFT_BEHIND.append(self._session)
            self._begin()
        return self._session

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments
