"""`lam map`, with a model that needs no weights."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lam_model import cli

pytest.importorskip("umap")


def encode(texts):
    vectors = np.array([[text.count(letter) for letter in "abcdef"] for text in texts], np.float32) + 1e-3
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def loaded(monkeypatch):
    """How often a model was loaded."""
    calls = []
    model = SimpleNamespace(encode=encode)
    monkeypatch.setattr("lam_model.commands.map.load_encoder", lambda args: calls.append(args) or model)
    return calls


@pytest.fixture
def corpus(tmp_path):
    def write(*rows):
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(("count", "clusters"), [(1, 1), (2, 1), (12, 2)])
def test_map_writes_a_page(loaded, corpus, tmp_path, capsys, count, clusters):
    path = corpus(*({"text": "abcdef"[i % 6] * (i + 1), "title": f"title {i}"} for i in range(count)))
    assert cli.main(["map", str(path), "-o", str(tmp_path / "map.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'map.html'}: {count} documents in {clusters} clusters\n"
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert '"name":"corpus.jsonl"' in page
    assert all(f'"title":"title {i}"' in page for i in range(count))


def test_map_makes_as_many_clusters_as_are_asked_for(loaded, corpus, tmp_path, capsys):
    path = corpus(*({"text": letter * 3} for letter in "abcdef"))
    assert cli.main(["map", str(path), "-o", str(tmp_path / "map.html"), "--clusters", "3"]) == 0
    assert capsys.readouterr().out.endswith("6 documents in 3 clusters\n")


def refused(capsys, *arguments):
    assert cli.main(["map", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_drawn_is_refused_before_the_model_is_loaded(loaded, corpus, tmp_path, capsys, monkeypatch):
    page, path = tmp_path / "map.html", corpus()
    assert "corpus.jsonl holds no documents" in refused(capsys, path, "-o", page)
    path = corpus({"text": "a"}, {"words": "b"})
    assert "corpus.jsonl, line 2" in refused(capsys, path, "-o", page)
    path = corpus({"text": "a"})
    assert "no.jsonl" in refused(capsys, tmp_path / "no.jsonl", "-o", page)
    assert "is a folder, name a file" in refused(capsys, path, "-o", tmp_path)
    assert "make the folder" in refused(capsys, path, "-o", tmp_path / "no" / "map.html")
    assert "is read and would be replaced" in refused(capsys, path, "-o", path)
    monkeypatch.setitem(sys.modules, "umap", None)
    assert "pip install 'lam-model[map]'" in refused(capsys, path, "-o", page)
    assert not loaded
    assert not page.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_named(loaded, corpus, capsys):
    assert (
        refused(capsys, corpus({"text": "a"}), "-o", "/dev/full") == "lam: error: /dev/full: No space left on device\n"
    )
