"""The map: places, clusters and their words; and a page that holds any text as it is."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from lam_model.corpus.documents import Document
from lam_model.index.map import CHARS, find_clusters, lay_out, typical_words, write_map

pytest.importorskip("umap")


def groups(*sizes, seed=0):
    """Unit vectors around as many random directions as there are sizes."""
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([rng.normal(size=24) + 0.3 * rng.normal(size=(size, 24)) for size in sizes])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def content(path):
    """What a page shows, read as a browser reads it: up to the first end of a script."""
    page = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)[1])


def test_groups_are_apart_on_the_map():
    places, group = lay_out(groups(20, 20, 20)), np.repeat([0, 1, 2], 20)
    middles = np.stack([places[group == i].mean(axis=0) for i in range(3)])
    distances = np.linalg.norm(places[:, None] - middles, axis=-1)
    assert (distances.argmin(axis=1) == group).all()
    assert places.min() == 0
    assert places.max() == 1000
    assert np.ptp(places[:, 0]) >= np.ptp(places[:, 1])


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16])
def test_a_few_documents_have_places(count):
    places = lay_out(groups(count))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == count


@pytest.mark.parametrize("count", [2, 40])
def test_one_text_many_times_is_one_cluster(count):
    vectors = np.repeat(groups(1), count, axis=0)
    assert np.isfinite(lay_out(vectors)).all()
    assert find_clusters(vectors, 5).tolist() == [0] * count


def test_clusters_are_numbered_by_their_size():
    clusters = find_clusters(groups(5, 20, 10), 3)
    assert np.bincount(clusters).tolist() == [20, 10, 5]
    assert [len(set(clusters[part].tolist())) for part in (slice(0, 5), slice(5, 25), slice(25, 35))] == [1, 1, 1]


def test_a_cluster_has_the_words_that_the_others_have_not():
    texts = ["the coffee is hot today"] * 3 + ["today the moon is bright"] * 2 + ["12 , ..."]
    words = typical_words(texts, np.array([0, 0, 0, 1, 1, 2]))
    assert set(words[0][:2]) == {"coffee", "hot"}
    assert set(words[1][:2]) == {"bright", "moon"}
    assert words[2] == []
    assert typical_words(["", "the 1"], np.array([0, 1])) == [[], []]


NASTY = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u2028\u2029 \x00 \udc80 & ' \" \\ DATA é"


def test_any_text_is_in_the_page_as_it_is(tmp_path):
    documents = [Document(NASTY, NASTY, "a"), Document("another"), Document("x" * (CHARS + 1))]
    assert write_map(documents, groups(3), tmp_path / "map.html", NASTY) == 1
    page = content(tmp_path / "map.html")
    assert page["name"] == page["points"][0]["title"] == page["points"][0]["text"] == NASTY
    assert page["points"][1]["title"] == ""
    assert page["points"][2]["text"] == "x" * CHARS + " …"
    assert (tmp_path / "map.html").read_text(encoding="utf-8").count("<script") == 2


def test_the_page_loads_nothing(tmp_path):
    write_map([Document("a text")], groups(1), tmp_path / "map.html", "one")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert not re.findall(r"https?:|src=|<link|@import|url\(", page)
    assert "default-src 'none'" in page


def test_the_same_documents_give_the_same_page(tmp_path):
    documents, vectors = [Document(f"text {i}") for i in range(40)], groups(20, 20)
    pages = []
    for name in ("one.html", "two.html"):
        write_map(documents, vectors, tmp_path / name, "name", clusters=4)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert len(content(tmp_path / "one.html")["clusters"]) == 4


def test_the_mend_is_named_where_the_library_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"umap.* is not installed: pip install 'lam-model\[map\]'"):
        write_map([Document("a text")], groups(1), tmp_path / "map.html", "one")
