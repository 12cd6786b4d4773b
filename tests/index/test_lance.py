"""An index in a folder: what is added, replaced, deleted, found and refused; killed processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lam_model
from lam_model import Passages
from lam_model.corpus.documents import Document

pytest.importorskip("lancedb")

from lam_model.index import lance, lance_table
from lam_model.index.lance import Added, LanceIndex

WORDS = ["sea", "fish", "rock", "star", "moon"]
SEA = Document("fish swim in the sea\na dry rock under a star\nthe star is far", "Sea", "a", (1990, "blue"))
SKY = Document("a star and a moon\nmoon moon", "Sky", "b", (2000, None))
STONE = Document("rock on rock", "", "c", (2010, "grey"))


class Words:
    """Stands in for a model: the vector of a text is the direction of its words' counts; a passage is a line."""

    def __init__(self, size=5, turned=1.0):
        self.size, self.turned, self.encoded = size, turned, []

    def encode(self, texts):
        vectors = np.array([[t.split().count(w) for w in WORDS[: self.size]] for t in texts], np.float32) + 1e-3
        vectors[:, 0] *= self.turned
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts, size, batch_size=32):
        self.encoded += texts
        found = []
        for text in texts:
            lines = text.splitlines(keepends=True)
            bounds = np.cumsum([0, *map(len, lines)])
            offsets = np.stack([bounds[:-1], bounds[:-1] + [len(line.rstrip("\n")) for line in lines]], axis=1)
            found.append(Passages(self.encode([text])[0], self.encode(lines or [""])[: len(lines)], offsets))
        return found


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def index(folder):
    index = LanceIndex(folder, Words(), keep=("year", "colour"))
    assert index.add([SEA, SKY, STONE]) == Added(3, 0, 0, None)
    return index


def ids(hits):
    return [hit.id for hit in hits]


def everything(index):
    """The documents of an index as they were given."""
    contents = lance_table.contents(index._table, ["a", "b", "c", "d", "it's"])
    assert sum(len(parts) for _, parts, _ in contents.values()) == len(index)
    return {"".join(parts): kept for _, parts, kept in contents.values()}


def test_a_document_is_found_by_its_best_passage(index):
    (hits,) = index.search(["rock"], top_k=2, hybrid=False)
    assert ids(hits) == ["c", "a"]
    stone, sea = hits
    assert stone.score == pytest.approx(1, abs=1e-3)
    assert stone[2:] == ("", "rock on rock", None, {"year": 2010, "colour": "grey"})
    assert (sea.title, sea.text, sea.kept) == ("Sea", SEA.text, {"year": 1990, "colour": "blue"})
    assert sea.passage.text == SEA.whole[sea.passage.start : sea.passage.end] == "a dry rock under a star"
    assert sea.passage.window == SEA.whole


def test_words_lift_what_vectors_do_not_tell(index):
    """`swim` is no word of the vectors."""
    assert ids(index.search(["moon swim"], hybrid=False)[0])[0] == "b"
    hits = index.search(["swim rock"], top_k=3)[0]
    assert set(ids(hits)) == {"a", "b", "c"}
    assert ids(index.search(["swim"], top_k=1)[0]) == ["a"]


def test_fusion_adds_reciprocal_ranks():
    a, b, c = (lance_table.Row(name, name, 0, 0, 1, np.zeros(1)) for name in "abc")
    assert lance._fused([[a, b, c], [c, b]]) == [c, b, a]  # 1/63 + 1/61, 2/62, 1/61
    assert lance._fused([[b, a]]) == [b, a]


def test_several_queries_each_have_their_hits(index):
    first, second = index.search(["moon", "fish"], top_k=1)
    assert (ids(first), ids(second)) == (["b"], ["a"])


def test_other_documents_are_looked_for_behind_one_of_many_passages(folder):
    """More passages of one document come first than are looked at at once."""
    index = LanceIndex(folder, Words())
    index.add(
        [Document("\n".join(["moon"] * 900), id="long"), Document("moon star", id="short"), STONE._replace(kept=())]
    )
    for hybrid in (True, False):
        assert set(ids(index.search(["moon"], top_k=3, hybrid=hybrid)[0])) == {"long", "short", "c"}
        assert len(index.search(["moon"], top_k=9, hybrid=hybrid)[0]) == 3


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("year > 1995", {"b", "c"}),
        ("colour IS NULL", {"b"}),
        ("title = 'Sea' OR id = 'c'", {"a", "c"}),
        ("year > 3000", set()),
    ],
)
@pytest.mark.parametrize("hybrid", [True, False])
def test_where_holds_for_all_that_is_found(index, where, found, hybrid):
    assert set(ids(index.search(["sea rock moon"], top_k=3, where=where, hybrid=hybrid)[0])) == found


@pytest.mark.parametrize("where", ["yaer > 1", "year >", "year = 'x'", "1"])
def test_a_wrong_where_is_named(index, where):
    with pytest.raises(ValueError, match="cannot be filtered by") as caught:
        index.search(["sea"], where=where)
    assert where in str(caught.value) or repr(where) in str(caught.value)


def test_what_is_there_is_not_encoded_again_and_what_changed_is_replaced(index, folder):
    again = LanceIndex(folder, Words())
    changed = SEA._replace(text="moon")
    assert again.add([changed, SKY, Document("sea", "", "d", (1, None))]) == Added(1, 1, 1, None)
    assert again._model.encoded == ["Sea moon", "sea"]
    assert set(everything(again)) == {"Sea moon", SKY.whole, STONE.text, "sea"}
    assert ids(index.search(["dry"], hybrid=True, top_k=1)[0]) != ["a"]  # an index that was open sees it too


def test_a_kept_value_alone_makes_a_document_another(index):
    assert index.add([SEA._replace(kept=(1991, "blue"))]) == Added(0, 1, 0, None)
    assert everything(index)[SEA.whole] == {"year": 1991, "colour": "blue"}


def test_documents_are_deleted_by_id(index):
    index.add([SEA._replace(id="it's")])
    assert index.delete(["it's", "b", "unknown"]) == 2
    assert set(everything(index)) == {SEA.whole, STONE.text}
    assert index.delete(["unknown"]) == index.delete([]) == 0
    assert set(ids(index.search(["moon"], top_k=9)[0])) == {"a", "c"}


def test_an_index_that_is_emptied_is_named_and_can_be_filled(index):
    index.delete("abc")
    with pytest.raises(ValueError, match="is empty"):
        index.search(["sea"])
    index.add([SEA])
    assert ids(index.search(["sea"])[0]) == ["a"]


def test_documents_without_an_id_are_known_by_their_content(folder):
    index = LanceIndex(folder, Words())
    assert index.add([Document("sea"), Document("fish"), Document("sea")]) == Added(2, 0, 0, None)
    assert index.add([Document("fish"), Document("rock")]) == Added(1, 0, 1, None)
    assert len(index) == 3


def test_texts_without_a_word_and_with_lone_surrogates_are_kept(folder):
    index = LanceIndex(folder, Words())
    index.add([Document("", id="a"), Document("sea \ud800 \U0001f41f", id="b")])
    assert set(everything(index)) == {"", "sea \ufffd \U0001f41f"}


def test_a_process_that_was_killed_is_made_up_for(index, folder, monkeypatch):
    """Between the two commits of a chunk, and before them."""

    def killed(*args):
        raise KeyboardInterrupt

    changed = [SEA._replace(text="moon"), SKY._replace(text="sea\nsea"), Document("fish", id="d", kept=(1, None))]
    for name in ("add", "delete", "fold"):
        with monkeypatch.context() as patch:
            patch.setattr(lance_table, name, killed)
            with pytest.raises(KeyboardInterrupt):
                LanceIndex(folder, Words()).add(changed)
        assert all(len(hits) == len(set(ids(hits))) for hits in index.search(["sea", "moon"], top_k=9))
    assert LanceIndex(folder, Words()).add(changed) == Added(0, 0, 3, None)
    assert set(everything(LanceIndex(folder))) == {"Sea moon", "Sky sea\nsea", "fish", STONE.text}


def test_a_killed_process_leaves_a_folder_that_can_be_used(folder):
    (folder / "passages.lance" / "data").mkdir(parents=True)
    assert LanceIndex(folder, Words()).add([STONE._replace(kept=())]).new == 1


def test_indexes_that_a_killed_process_did_not_make_are_made(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(lance_table, "_index_ids_and_words", lambda table: None)
        LanceIndex(folder, Words()).add([STONE._replace(kept=())])
    assert ids(LanceIndex(folder, Words()).search(["rock"])[0]) == ["c"]
    assert {one.index_type for one in LanceIndex(folder)._table.list_indices()} == {"BTree", "FTS"}


@pytest.mark.slow
def test_killed_at_any_time_nothing_is_doubled_or_lost(tmp_path):
    """A process of its own, killed again and again while it adds."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_lance import *
from lam_model.corpus import vectors
vectors._CHUNK_TEXTS = 5
LanceIndex({str(tmp_path / "index")!r}, Words()).add(
    Document("sea\\nfish " * (i % 7), id=str(i)) for i in range(int(sys.argv[1]), 300)
)
"""
    random = np.random.default_rng(0)
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", code, "0"])
        try:
            process.wait(timeout=float(random.uniform(2, 6)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    subprocess.run([sys.executable, "-c", code, "0"], check=True)
    table = LanceIndex(tmp_path / "index")._table
    rows = [(row["id"], row["passage"]) for row in table.search().select(["id", "passage"]).to_list()]
    assert len(rows) == len(set(rows)) == sum(max(1, i % 7 + 1) for i in range(300))
    assert {name for name, _ in rows} == {str(i) for i in range(300)}


def test_another_models_vectors_are_refused_and_nothing_is_lost(index, folder):
    with pytest.raises(ValueError, match="vectors of another model: give the model and dtype that made it"):
        LanceIndex(folder, Words(turned=1.1))
    with pytest.raises(ValueError, match=f"{folder} has vectors of 5 numbers, not of 3"):
        LanceIndex(folder, Words(3))
    assert len(everything(LanceIndex(folder, Words(turned=1.001)))) == 3


def test_an_index_made_on_one_runtime_is_read_on_the_other_and_not_in_int8_or_base_only(folder):
    pytest.importorskip("torch")
    assert LanceIndex(folder, lam_model.load(), keep=("year", "colour")).add([SEA, SKY]) == Added(2, 0, 0, None)
    again = LanceIndex(folder, lam_model.OnnxEncoder())
    assert again.add([SEA, SKY, STONE]) == Added(1, 0, 2, None)
    assert ids(again.search(["the moon"])[0])[0] == "b"
    for other in ({"dtype": "int8"}, {"base_only": True}):
        with pytest.raises(ValueError, match="vectors of another model"):
            LanceIndex(folder, lam_model.OnnxEncoder(**other))


def test_other_columns_and_passages_are_refused(index, folder):
    with pytest.raises(ValueError, match=r"other columns \(year, colour\)"):
        LanceIndex(folder, Words(), keep=("year",))
    with pytest.raises(ValueError, match="passages of 32 tokens"):
        LanceIndex(folder, Words(), passage_size=64)
    with pytest.raises(ValueError, match="column `Text` cannot be kept"):
        LanceIndex(folder / "new", Words(), keep=("Text",))
    same = LanceIndex(folder, Words(), keep=("year", "colour"), passage_size=32)
    assert (same.keep, same.passage_size) == (LanceIndex(folder).keep, 32)


def test_what_an_index_is_made_of_stands_in_it(index):
    about = lance_table.about(LanceIndex(index.folder)._table)
    assert about == lance_table.About(pytest.approx(index._golden(), abs=1e-6), 32, lance.__version__)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no documents to add"),
        ([SEA, SEA._replace(text="moon")], "two documents have the id 'a'"),
        ([SEA._replace(kept=("x", "y"))], "column `year` needs values of the type int64: .*'x'"),
        ([SEA._replace(kept=(1,))], "document 'a' keeps 1 values for the columns: year, colour"),
    ],
)
def test_bad_documents_are_named_and_nothing_is_lost(index, documents, message):
    with pytest.raises(ValueError, match=message):
        index.add(documents)
    assert set(everything(index)) == {SEA.whole, SKY.whole, STONE.text}


def test_folders_that_are_no_index_are_named(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no index: name one, or a folder that is new or empty"):
        LanceIndex(tmp_path, Words())
    with pytest.raises(FileNotFoundError, match="new holds no index"):
        LanceIndex(tmp_path / "new", Words()).search(["sea"])
    assert not (tmp_path / "new").exists()


def test_a_table_of_somebody_else_is_refused(tmp_path):
    import lancedb

    lancedb.connect(tmp_path).create_table("passages", data=[{"a": 1}])
    with pytest.raises(ValueError, match="a table that LAM did not make"):
        LanceIndex(tmp_path)


def test_a_damaged_index_is_named(index, folder):
    for file in (folder / "passages.lance" / "_versions").glob("*.manifest"):
        file.write_bytes(b"damaged")
    with pytest.raises(OSError, match=f"{folder} cannot be read or written"):
        LanceIndex(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"queries": [" "]}, "query at index 0 is empty"), ({"queries": ["sea"], "top_k": 0}, "top_k is 0")],
)
def test_bad_queries_are_named(index, arguments, message):
    with pytest.raises(ValueError, match=message):
        index.search(**arguments)


def test_from_so_many_rows_on_there_is_an_ann_index_and_its_recall_is_measured(folder, monkeypatch):
    class Random(Words):
        """Vectors in some directions, so that there is something to be near to."""

        size = 16

        def encode(self, texts):
            draws = [np.random.default_rng(abs(hash(text)) % 2**32) for text in texts]
            centres = np.random.default_rng(0).normal(size=(20, self.size))
            vectors = np.array([centres[draw.integers(20)] + draw.normal(size=self.size) / 2 for draw in draws])
            return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(lance_table, "ANN_ROWS", 1000)
    monkeypatch.setattr(lance_table, "_SAMPLE", 10)
    index = LanceIndex(folder, Random())
    assert index.add(Document(f"sea {i}", id=str(i)) for i in range(900)).recall is None
    added = index.add(Document(f"sea {i}", id=str(i)) for i in range(900, 1500))
    assert added.new == 600
    assert 0.9 <= added.recall <= 1
    assert index.add([Document("moon", id="new")]).recall is None  # it is folded in, and not made again
    assert {one.index_type for one in index._table.list_indices()} == {"BTree", "FTS", "IvfSq"}
    assert index._table.index_stats("vector_idx").num_unindexed_rows == 0
    assert ids(index.search(["moon"], top_k=1, hybrid=False)[0]) == ["new"]
    (few,) = index.search(["moon"], top_k=30, where="id IN ('1', '2', '3', '1400')", hybrid=False)
    assert set(ids(few)) == {"1", "2", "3", "1400"}


def test_without_lancedb_the_extra_is_named(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ModuleNotFoundError, match=r"lam-model\[index\]"):
        LanceIndex(folder)
