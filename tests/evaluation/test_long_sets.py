"""Sets of long documents: every fact is in its own document, which is as long as it says, and in no other."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from lam_model.corpus.documents import Document
from lam_model.evaluation.long_sets import LENGTHS, all_sets, articles, counted_sentences, longembed, needle, passkey


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


def article(name: str, sentences: int) -> Document:
    said = [
        f"In part {i} of {name} there is much to be said of number {i} and of its neighbours." for i in range(sentences)
    ]
    return Document(" ".join(said), title=f"On {name}")


HAYSTACK = [article("tides", 30), article("lichens", 40)]


def lengths(tokenizer, texts):
    return list(map(len, tokenizer(texts, verbose=False)["input_ids"]))


def build(kind, tokenizer, length):
    if kind == "passkey":
        return passkey(tokenizer, length)
    return needle(tokenizer, length, counted_sentences(tokenizer, HAYSTACK))


@pytest.mark.parametrize("length", [256, 1024, 4096])
@pytest.mark.parametrize("kind", ["passkey", "needle"])
def test_documents_are_as_long_as_they_say(tokenizer, kind, length):
    found = lengths(tokenizer, build(kind, tokenizer, length).documents)
    assert max(found) <= length
    assert min(found) > length - 25  # room for no sentence more


@pytest.mark.parametrize("kind", ["passkey", "needle"])
def test_each_query_is_answered_by_its_document_alone(tokenizer, kind):
    found = build(kind, tokenizer, 1024)
    assert len(set(found.queries)) == len(found.documents) == 50
    wanted = [query.removeprefix("What is the ").removesuffix("?") for query in found.queries]
    for about, relevant in zip(wanted, found.relevant, strict=True):
        assert {i for i, text in enumerate(found.documents) if about in text} == relevant
        (place,) = relevant
        assert place == wanted.index(about)


@pytest.mark.parametrize("kind", ["passkey", "needle"])
def test_facts_lie_at_all_depths(tokenizer, kind):
    found = build(kind, tokenizer, 2048)
    depths = [
        text.index(query.removeprefix("What is the ").removesuffix("?")) / len(text)
        for query, text in zip(found.queries, found.documents, strict=True)
    ]
    assert min(depths) < 0.2
    assert max(depths) > 0.8
    assert build(kind, tokenizer, 2048) == found


def test_articles_are_asked_for_by_title_and_a_sentence_of_each_third():
    found = articles(HAYSTACK)
    assert [query for query in found.queries if query.startswith("On ")] == ["On tides", "On lichens"]
    assert found.relevant == [{0}] * 4 + [{1}] * 4
    for i, text in enumerate(found.documents):
        thirds = [text.index(query) * 3 // len(text) for query in found.queries[4 * i + 1 : 4 * i + 4]]
        assert thirds == [0, 1, 2]
        assert f"{HAYSTACK[i].title} " not in text


def test_an_article_without_whole_sentences_is_asked_for_by_its_title():
    assert articles([Document("word " * 3000, title="Words")]).queries == ["Words"]
    assert articles([Document("word " * 3000)]).queries == []
    assert len(articles([HAYSTACK[0]._replace(title="")]).queries) == 3


@pytest.fixture
def folder(tmp_path):
    """LongEmbed's pass keys of two lengths, in the Hub's layout."""
    task = tmp_path / "mteb" / "LEMBPasskeyRetrieval"
    task.mkdir(parents=True)
    rows = {
        "corpus": [{"_id": f"d{i}", "title": "", "text": f"The key of {i} is {i}."} for i in range(3)],
        "queries": [{"_id": f"q{i}", "text": f"What is the key of {i}?"} for i in (2, 0)],
        "qrels": [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in (0, 2)],
    }
    yaml = ""
    for config, some in rows.items():
        (task / f"{config}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
        yaml += f"- config_name: {config}\n  data_files:\n"
        yaml += "".join(f"  - split: test_{length}\n    path: {config}.jsonl\n" for length in LENGTHS)
    (task / "README.md").write_text(f"---\nconfigs:\n{yaml}---\n", encoding="utf-8")
    return tmp_path


def test_longembed_is_read_as_mteb_reads_it(folder, capsys):
    pytest.importorskip("mteb")
    found = longembed(folder)
    assert list(found) == [f"LEMBPasskeyRetrieval test_{length}" for length in LENGTHS]
    one = found["LEMBPasskeyRetrieval test_256"]
    assert one.documents == [f"The key of {i} is {i}." for i in range(3)]
    answers = {query: one.documents[min(relevant)] for query, relevant in zip(one.queries, one.relevant, strict=True)}
    assert answers == {f"What is the key of {i}?": f"The key of {i} is {i}." for i in (0, 2)}
    assert one.metric == "accuracy"
    assert "LEMBNeedleRetrieval is left out" in capsys.readouterr().err


def test_all_sets_go_from_real_documents_to_the_longest(tokenizer, tmp_path):
    pytest.importorskip("mteb")
    (tmp_path / "mteb").mkdir()
    found = all_sets(tokenizer, HAYSTACK, tmp_path)
    assert list(found)[:3] == ["articles", "needle 256", "passkey 256"]
    assert list(found)[-1] == "passkey 32,768"
    assert found["articles"].about() == {"queries": 8, "documents": 2, "metric": "ndcg@10"}
    assert not [name for name in all_sets(tokenizer, [], tmp_path) if not name.startswith("passkey")]
