"""Small corpora in files, and stand-ins for models."""

import numpy as np
import pytest

from lam_model.corpus.outputs import write_chunks
from lam_model.corpus.vectors import Encoding, in_texts
from lam_model.reading.passages import Passages


def write_vectors(model, documents, output, keep=(), **options):
    return write_chunks(map(Encoding(model, **options), in_texts(documents, keep)), output)


class Counting:
    """Stands in for a model: its vectors tell the texts apart, and it remembers how many it was given at once."""

    def __init__(self):
        self.batches = []

    def encode(self, texts, batch_size=32, show_progress_bar=None):
        self.batches.append(len(texts))
        return np.array([vector(text) for text in texts], np.float32)


def vector(text):
    angle = len(text) + sum(map(ord, text)) / 7
    return np.float32([np.cos(angle), np.sin(angle), 0])


class Halves:
    """Stands in for a model: the passages of a text are its halves, an empty text has none."""

    def encode_passages(self, texts):
        return [self.passages(text) for text in texts]

    def passages(self, text):
        middle = (len(text) + 1) // 2
        offsets = np.array([[0, middle], [middle, len(text)]] if text else np.empty((0, 2)), np.int64)
        vectors = np.array([vector(text[a:b]) for a, b in offsets], np.float32).reshape(-1, 3)
        return Passages(vector(text), vectors, offsets)


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_file(tmp_path, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), tmp_path / "texts.parquet")
    return tmp_path / "texts.parquet"
