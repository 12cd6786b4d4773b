"""Sets of questions about passages: what is read is checked, and what is made up is asked for as said."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from lam_model.corpus.documents import Document
from lam_model.evaluation.context_sets import WITH_TITLE, WITHOUT_TITLE, Question, made_up_sets, read_context_set
from lam_model.reading.cutting import passage_offsets
from lam_model.reading.tokenizing import unlimited

DOCUMENTS = [{"_id": "a", "title": "Bees", "text": "Bees dance. They fly."}, {"_id": 7, "title": "", "text": ""}]
QUERY = {"query": "Who dances?", "document": "a", "spans": [[0, 11]]}


@pytest.fixture
def folder(tmp_path):
    def write(*queries, documents=DOCUMENTS):
        for name, rows in (("documents", documents), ("queries", queries)):
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return tmp_path

    return write


def test_a_folder_is_read(folder):
    found = read_context_set(folder(QUERY, "", QUERY | {"spans": [[0, 4], [12, 21]]}))
    assert found.documents == [Document("Bees dance. They fly.", "Bees", "a"), Document("", "", "7")]
    assert found.questions == [Question("Who dances?", 0, [(0, 11)]), Question("Who dances?", 0, [(0, 4), (12, 21)])]
    assert found.about() == {"queries": 2, "documents": 2, "metric": "ndcg@10"}
    assert found.size is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("no json", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "has no `query`"),
        ({"document": "a", "spans": [[0, 4]]}, "has no `query`"),
        (QUERY | {"query": " "}, "has no `query`"),
        (QUERY | {"query": 1}, "has no `query`"),
        (QUERY | {"document": "b"}, "it must be an `_id` of documents.jsonl"),
        (QUERY | {"document": None}, "it must be an `_id` of documents.jsonl"),
        ({"query": "?", "document": "a"}, "has no `spans`"),
        (QUERY | {"spans": []}, "has no `spans`"),
        (QUERY | {"spans": [0, 4]}, "must be [start, end]"),
        (QUERY | {"spans": [[0, 4, 5]]}, "must be [start, end]"),
        (QUERY | {"spans": [[0, 4.5]]}, "must be [start, end]"),
        (QUERY | {"spans": [[False, 4]]}, "must be [start, end]"),
        (QUERY | {"spans": [[4, 4]]}, "must be [start, end]"),
        (QUERY | {"spans": [[-1, 4]]}, "must be [start, end]"),
        (QUERY | {"spans": [[0, 4], [12, 22]]}, "start < end <= 21"),
        (QUERY | {"document": 7, "spans": [[0, 1]]}, "start < end <= 0"),
        (QUERY | {"spans": [[11, 12]]}, "only white space"),
    ],
)
def test_a_query_that_is_wrong_is_named_by_its_line(folder, query, message):
    with pytest.raises(ValueError, match=r"queries\.jsonl, line 2 ") as error:
        read_context_set(folder(QUERY, query))
    assert message in str(error.value)


def test_files_that_are_wrong_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"documents\.jsonl does not exist"):
        read_context_set(tmp_path)
    with pytest.raises(ValueError, match=r"queries\.jsonl has no queries"):
        read_context_set(folder(""))
    with pytest.raises(ValueError, match=r"documents\.jsonl, line 1 has no `text`"):
        read_context_set(folder(QUERY, documents=[{"_id": "a"}]))
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"queries\.jsonl does not exist"):
        read_context_set(tmp_path)


ARTICLE = (
    "Ada Byron wrote notes on the engine of Babbage in the summer of that year. She told how a machine may be made "
    "to compute the numbers of Bernoulli. It would have been the first program that anybody ever published. She rested."
)


@pytest.fixture(scope="module")
def tokenizer(base):
    return unlimited(Tokenizer.from_file(str(base / "tokenizer.json")))


def test_passages_that_begin_with_a_pronoun_are_asked_for_by_a_third_of_their_words(tokenizer):
    articles = [Document(f"{ARTICLE} {ARTICLE}", "Ada", "x"), Document(ARTICLE), Document(ARTICLE, "Lovelace")]
    found = made_up_sets(tokenizer, articles)
    without, titled = found[WITHOUT_TITLE], found[WITH_TITLE]
    assert (without.metric, without.size) == ("accuracy", 32)
    assert [one.title for one in without.documents] in (["Ada", "Lovelace"], ["Lovelace", "Ada"])
    passages = passage_offsets(tokenizer, [one.text for one in without.documents], without.size)
    for one, same in zip(without.questions, titled.questions, strict=True):
        document = without.documents[one.document]
        assert same == one._replace(query=f"{document.title} {one.query}")
        (span,) = one.spans
        assert list(span) in passages[one.document].tolist()
        words = document.text[slice(*span)].split()
        assert words[0] in ("She", "It")
        assert len(words) >= 12
        rest = iter(words)
        assert all(word in rest for word in one.query.split())  # in their order
        assert len(one.query.split()) == -(-len(words) // 3)
    assert len({(one.document, *one.spans) for one in without.questions}) == len(without.questions) == 3


def test_made_up_questions_depend_on_the_seed_alone(tokenizer):
    articles = [Document(ARTICLE, f"Ada {i}") for i in range(70)]
    first, again, other = (made_up_sets(tokenizer, articles, seed)[WITHOUT_TITLE] for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(first.documents) == 60


def test_articles_without_such_passages_are_refused(tokenizer):
    for articles in ([], [Document(ARTICLE)], [Document("Nobody rested.", "Ada")], [Document("", "Ada")]):
        with pytest.raises(ValueError, match="begins with a pronoun: give more articles"):
            made_up_sets(tokenizer, articles)
