import json

import numpy as np
import pytest
from corpora import Counting, Halves, vector, write_vectors

from lam_model.corpus import vectors as module
from lam_model.corpus.documents import Document


def test_long_texts_make_small_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_CHARS", 100)
    model = Counting()
    write_vectors(model, (Document("x" * 60) for _ in range(5)), tmp_path / "v.npy")
    assert model.batches == [2, 2, 1]


def test_texts_are_read_as_they_are_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 2)
    model = Counting()

    def documents():
        for i in range(6):
            assert i - sum(model.batches) < 2
            yield Document("x")

    assert write_vectors(model, documents(), tmp_path / "v.npy") == 6


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_passages_are_rows_with_number_and_characters(tmp_path, suffix):
    documents = [Document("abcd", "T", "one"), Document(""), Document("xyz")]
    output = tmp_path / f"passages{suffix}"
    assert write_vectors(Halves(), documents, output, passages=True) == 4
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(output).to_pylist()
    assert [(row["id"], row["passage"], row["start"], row["end"]) for row in rows] == [
        ("one", 0, 0, 3),
        ("one", 1, 3, 6),
        ("2", 0, 0, 2),
        ("2", 1, 2, 3),
    ]
    np.testing.assert_array_equal(np.float32(rows[1]["embedding"]), vector("bcd"))
