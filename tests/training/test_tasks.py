"""What tuning learns from: folders, files, their splits, and clear refusals that name file and line."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from lam_model.training import data
from lam_model.training.data import normalise
from lam_model.training.tasks import Retrieval, Similarity, Texts, cut, guarded, read_task, sample


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Three documents, three training queries and a test query that is worded like one of them."""
    write_lines(
        tmp_path / "set" / "corpus.jsonl",
        [
            {"_id": "d1", "title": "Tea", "text": "is a drink"},
            {"_id": "d2", "title": "", "text": "Coffee is another"},
            {"_id": "d3", "text": "Stone is none"},
        ],
    )
    queries = [("q1", "what is tea"), ("q2", "what is coffee"), ("q3", "a stone"), ("t1", "What is... coffee?")]
    write_lines(tmp_path / "set" / "queries.jsonl", [{"_id": i, "text": text} for i, text in queries])
    judged = [("q1", "d1", 1), ("q1", "d2", 2), ("q2", "d2", 1), ("q3", "d3", 0)]
    rows = [{"query-id": query, "corpus-id": document, "score": score} for query, document, score in judged]
    write_lines(tmp_path / "set" / "qrels" / "train.jsonl", rows)
    write_lines(tmp_path / "set" / "qrels" / "test.jsonl", [{"query-id": "t1", "corpus-id": "d2", "score": 1}])
    return tmp_path / "set"


def test_folder_gives_judged_queries_and_no_test_query(folder):
    task = read_task(str(folder))
    assert isinstance(task, Retrieval)
    assert task.name == "set"
    assert task.corpus == {"d1": "Tea is a drink", "d2": "Coffee is another", "d3": "Stone is none"}
    # q2 is worded like the test query; q3 has no document that answers it
    assert task.queries == {"q1": "what is tea"}
    assert task.relevant == {"q1": ["d1", "d2"]}


def test_folder_reads_tab_separated_judgements_too(folder):
    (folder / "qrels" / "train.jsonl").unlink()
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    assert read_task(str(folder)).relevant == {"q1": ["d1"]}


def test_folder_with_only_a_test_split_is_refused(folder):
    (folder / "qrels" / "train.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"no train split \(there: test.jsonl\)"):
        read_task(str(folder))


@pytest.mark.parametrize("name", ["test.jsonl", "sts-test.jsonl", "test-00000-of-00001.jsonl", "my_TEST.jsonl"])
def test_file_of_a_test_split_is_refused(tmp_path, name):
    write_lines(tmp_path / name, [{"query": "a", "passage": "b"}])
    with pytest.raises(ValueError, match="test split"):
        read_task(str(tmp_path / name))


def test_file_whose_name_only_contains_the_word_is_read(tmp_path):
    write_lines(tmp_path / "latest.jsonl", [{"query": "a", "passage": "b"}])
    assert read_task(str(tmp_path / "latest.jsonl")).name == "latest"


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        ("queries.jsonl", [{"_id": "q1", "text": " "}], r"queries.jsonl, line 1: the query 'q1' is empty"),
        ("corpus.jsonl", [{"_id": "d1", "text": "a"}] * 2, r"corpus.jsonl, line 2: the id 'd1' was given to another"),
        ("corpus.jsonl", [{"_id": "d1", "text": "a"}], r"train.jsonl, line 2: the document 'd2' is missing"),
        ("queries.jsonl", [{"_id": "x", "text": "a"}], r"train.jsonl, line 1: the query 'q1' is not among"),
        ("corpus.jsonl", [{"text": "a"}], r"corpus.jsonl, line 1 has no `_id`"),
        (
            "qrels/train.jsonl",
            [{"query-id": "q1", "corpus-id": "d1", "score": -1}],
            r"train.jsonl, line 1: the score -1 is out of range",
        ),
    ],
)
def test_bad_folder_is_refused_with_file_and_line(folder, file, rows, message):
    write_lines(folder / file, rows)
    with pytest.raises(ValueError, match=message):
        read_task(str(folder))


def test_line_that_is_no_json_is_refused(folder):
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n\n{"_id": \n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"queries.jsonl, line 3 is not JSON"):
        read_task(str(folder))


def test_pairs_are_queries_with_documents_and_equal_texts_are_one(tmp_path):
    rows = [("a", "one", "x"), ("b", "two", "x"), ("a", "three", "y"), ("c", "one", "y")]
    write_lines(tmp_path / "pairs.jsonl", [{"query": q, "passage": p, "source": s} for q, p, s in rows])
    task = read_task(str(tmp_path / "pairs.jsonl"))
    assert list(task.queries.values()) == ["a", "b", "c"]
    assert list(task.corpus.values()) == ["one", "two", "three"]
    answers = {task.queries[q]: [task.corpus[d] for d in known] for q, known in task.relevant.items()}
    assert answers == {"a": ["one", "three"], "b": ["two"], "c": ["one"]}
    assert task.negatives == {}


def test_further_columns_are_negatives(tmp_path):
    (tmp_path / "t.csv").write_text("anchor,positive,negative\na,one,two\na,three,two\n", encoding="utf-8")
    task = read_task(str(tmp_path / "t.csv"))
    assert [task.corpus[d] for d in task.negatives["0"]] == ["two"]
    assert [task.corpus[d] for d in task.relevant["0"]] == ["one", "three"]


def test_scored_pairs_have_scores_from_0_to_1(tmp_path):
    rows = [{"sentence1": "a", "sentence2": "b", "score": 5}, {"sentence1": "c", "sentence2": "d", "score": "1.25"}]
    write_lines(tmp_path / "sts" / "train.jsonl", rows)
    assert read_task(str(tmp_path / "sts" / "train.jsonl")) == Similarity("sts", [("a", "b"), ("c", "d")], [1.0, 0.25])


def test_long_documents_are_asked_for_by_title_and_sentences(tmp_path):
    said = [f"Of the {i} towns in the valley the oldest stands on the river." for i in range(90)]
    rows = [{"title": "", "text": " ".join(said[60:])}, {"title": "Towns", "text": " ".join(said[:60])}]
    write_lines(tmp_path / "long.jsonl", rows)
    task = read_task(str(tmp_path / "long.jsonl"))
    assert list(task.corpus.values()) == [row["text"] for row in rows]
    assert [task.relevant[query] for query in task.queries] == [["0"]] * 3 + [["1"]] * 4
    titled = [text for query, text in task.queries.items() if task.relevant[query] == ["1"]]
    assert titled[0] == "Towns"
    assert [said.index(sentence) // 20 for sentence in titled[1:]] == [0, 1, 2]
    rows[0]["text"] = " "
    write_lines(tmp_path / "long.jsonl", rows)
    with pytest.raises(ValueError, match="line 1: `text` is empty"):
        read_task(str(tmp_path / "long.jsonl"))


def test_texts_alone_are_read(tmp_path):
    write_lines(tmp_path / "plain.jsonl", [{"text": "a b", "source": "s"}, {"text": "c", "source": "t"}])
    assert read_task(str(tmp_path / "plain.jsonl")) == Texts("plain", ["a b", "c"])


def test_parquet_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"query": ["a"], "passage": ["b"]}), tmp_path / "p.parquet")
    assert read_task(str(tmp_path / "p.parquet")).queries == {"0": "a"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": "x", "b": "y", "score": 7}], r"bad.jsonl, line 1: the score 7 is out of range"),
        ([{"a": "x", "b": "y", "score": float("nan")}], r"bad.jsonl, line 1: the score nan is out of range"),
        ([{"a": "x", "b": "y"}, {"a": "", "b": "y"}], r"bad.jsonl, line 2: `a` is empty"),
        ([{"a": "x"}], r"bad.jsonl has the columns a: it needs"),
        ([{"query": "x", "passage": None}], r"bad.jsonl has the columns query, passage: it needs"),
        ([{"text": "x"}, {"text": ""}], r"bad.jsonl, line 2: `text` is empty"),
        ([], r"bad.jsonl holds no rows"),
    ],
)
def test_bad_file_is_refused_with_file_and_line(tmp_path, rows, message):
    write_lines(tmp_path / "bad.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        read_task(str(tmp_path / "bad.jsonl"))


def test_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl does not exist"):
        read_task("nowhere.jsonl")
    with pytest.raises(FileNotFoundError, match="neither a folder, nor a file"):
        read_task("nowhere")


def test_guarded_texts_are_left_out_and_counted(folder, monkeypatch):
    monkeypatch.setattr(data, "HELD_OUT", 10**9)
    task = read_task(str(folder))
    assert guarded(task, frozenset()) == (task, 0)
    kept, left_out = guarded(task, frozenset({normalise("Tea is a drink")}))
    assert (kept.relevant, left_out) == ({"q1": ["d2"]}, 0)
    assert "d1" not in kept.corpus
    kept, left_out = guarded(task, frozenset({normalise("What is TEA?")}))
    assert (len(kept), left_out) == (0, 1)
    pairs = Similarity("s", [("a", "b"), ("c", "a"), ("c", "d")], [0.0, 0.5, 1.0])
    assert guarded(pairs, frozenset({"a"})) == (Similarity("s", [("c", "d")], [1.0]), 2)
    assert guarded(Texts("t", ["A!", "b"]), frozenset({"a"})) == (Texts("t", ["b"]), 1)


def test_what_distillation_holds_out_is_left_out(monkeypatch):
    monkeypatch.setattr(data, "HELD_OUT", 1)
    assert guarded(Similarity("s", [("a", "b")], [0.0]), frozenset())[1] == 1


def test_texts_are_cut_at_so_many_tokens(tiny_base, sentences):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    long, short = sentences(1, 50)[0], sentences(1, 3)[0]
    task = cut(Retrieval("r", {"q": long}, {"d": short}, {"q": ["d"]}, {}), tokenizer, 11)
    assert task.corpus["d"] == short
    assert long.startswith(task.queries["q"])
    assert len(tokenizer(task.queries["q"])["input_ids"]) == 11
    quoted = {"head": long[:9], "tail": long[len(task.queries["q"]) :], "other": "?"}
    task_of_quotes = Retrieval("r", quoted, {"d": long}, {query: ["d"] for query in quoted}, {})
    assert list(cut(task_of_quotes, tokenizer, 11).relevant) == ["head", "other"]
    assert cut(Similarity("s", [(short, long)], [1.0]), tokenizer, 11).pairs == [(short, task.queries["q"])]
    assert cut(Texts("t", [long, short]), tokenizer, 11).texts == [task.queries["q"], short]


def test_sample_keeps_the_documents_of_the_queries_that_are_drawn():
    names = [str(i) for i in range(20)]
    task = Retrieval("r", dict(zip(names, names, strict=True)), {n: n for n in names}, {n: [n] for n in names}, {})
    drawn = sample(task, 5, seed=1)
    assert len(drawn) == 5
    assert drawn.corpus.keys() == drawn.queries.keys()
    assert sample(task, 5, seed=1) == drawn != sample(task, 5, seed=2)
    assert sample(task, 100) == task
    pairs = Similarity("s", [(n, n) for n in names], np.linspace(0, 1, 20).tolist())
    assert len(sample(pairs, 7).scores) == 7
    assert len(sample(Texts("t", names), 7)) == 7


@pytest.mark.parametrize("value", [True, 1.5, ["d1"], {"d": 1}], ids=repr)
@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/train.jsonl", "qrels/test.jsonl"])
def test_an_id_that_is_neither_string_nor_integer_is_refused(folder, file, value):
    rows = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    rows[0]["query-id" if "qrels" in file else "_id"] = value
    write_lines(folder / file, rows)
    with pytest.raises(ValueError, match=rf"{file}, line 1 has the .*: ids are strings or integers"):
        read_task(str(folder))


def test_numbers_are_the_same_ids_as_their_digits(folder):
    write_lines(folder / "queries.jsonl", [{"_id": 1, "text": "what is tea"}])
    write_lines(folder / "qrels" / "train.jsonl", [{"query-id": "1", "corpus-id": "d1", "score": 1}])
    assert read_task(str(folder)).relevant == {"1": ["d1"]}
    write_lines(folder / "queries.jsonl", [{"_id": 1, "text": "what is tea"}, {"_id": "1", "text": "what is coffee"}])
    with pytest.raises(ValueError, match=r"queries.jsonl, line 2: the id '1' was given to another query"):
        read_task(str(folder))


@pytest.mark.parametrize("name", ["asked.JSONL", "asked.ndjson", "asked.jsonl.gz"])
def test_jsonl_by_another_name_is_read(tmp_path, name):
    row = b'{"query": "what is tea", "passage": "a drink"}\n'
    (tmp_path / name).write_bytes(gzip.compress(row, mtime=0) if name.endswith(".gz") else row)
    task = read_task(str(tmp_path / name))
    assert (task.name, task.queries) == ("asked", {"0": "what is tea"})


@pytest.mark.parametrize("name", ["test.jsonl.gz", "my-test.NDJSON"])
def test_a_test_split_by_another_name_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="test split"):
        read_task(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"query,passage\n" + b"x" * 200_000 + b",y\n", "a.csv, line 2 cannot be read"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read as parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_task(str(tmp_path / name))
