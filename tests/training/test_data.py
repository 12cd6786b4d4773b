"""Training text: what is left out, what a batch holds, and that the order can be gone through again."""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import asdict
from itertools import islice, pairwise

import pytest
import torch
from conftest import BLOCK
from datasets import Dataset
from transformers import AutoTokenizer

from lam_model.training import data
from lam_model.training import data as data_module
from lam_model.training.data import (
    Batches,
    Position,
    held_out_genres,
    held_out_texts,
    normalise,
    read_guard,
    read_texts,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.fixture(scope="module")
def texts(sentences):
    """200 short texts of up to a block and a half, and 20 long ones of 100 to 290 tokens."""
    short = [text for words in range(1, 101) for text in sentences(2, words, seed=words) if len(text) <= 6 * BLOCK]
    long = [text for words in range(100, 300, 10) for text in sentences(1, words, seed=words)]
    assert min(map(len, long)) > 6 * BLOCK
    return dataset(short + long)


@pytest.fixture(autouse=True)
def _few_batches_at_a_time(monkeypatch):
    monkeypatch.setattr(data, "_POOL_BATCHES", 8)


def dataset(texts: list[str | None], column: str = "text") -> Dataset:
    return Dataset.from_dict({"text": texts, "column": [column] * len(texts)})


def rows(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for batch in batches for ids, mask in zip(*batch, strict=True)]


def read(tokenizer, texts: Dataset, count: int, **kwargs) -> tuple[list[list[int]], Batches]:
    """The texts of the first batches, as token ids without [CLS] and [SEP]."""
    batches = Batches(texts, tokenizer, BLOCK, **kwargs)
    return [row[1:-1] for row in rows(list(islice(batches, count)))], batches


def tokens(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("  A b,C! ", "a b c"), ("Straße_1 —  2", "straße_1 2"), ("... !", ""), ("it's", "it s"), ("a\n\tb", "a b")],
)
def test_texts_are_compared_by_their_words_in_small_letters(text, wanted):
    assert normalise(text) == wanted


@pytest.mark.parametrize("name", ["guard.txt", "guard.txt.xz"])
def test_guard_is_read_plain_and_compressed(tmp_path, name):
    opened = lzma.open if name.endswith(".xz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write("one text\nüber zwei\nlast without newline")
    assert read_guard(tmp_path / name) == {"one text", "über zwei", "last without newline"}


def test_real_guard_is_in_the_form_that_texts_are_compared_in(shared_data):
    guard = read_guard(shared_data / "eval_exclude_normalised.txt.xz")
    assert len(guard) == 80_626
    assert all(normalise(text) == text for text in guard)


def test_guarded_texts_are_left_out_and_counted(tokenizer, sentences, monkeypatch):
    """However they are written, and as often as they come by."""
    monkeypatch.setattr(data, "is_held_out", lambda text: False)
    kept, guarded = sentences(60, 6, seed=1), sentences(4, 6, seed=2)
    written = [text.replace(" ", ",  ").upper() + "." for text in guarded]
    seen, batches = read(tokenizer, dataset(kept + written), 40, tokens=128, guard=frozenset(guarded))
    assert {tuple(row) for row in seen} == {tuple(tokens(tokenizer, text)) for text in kept}
    assert batches.guarded >= 8
    assert batches.guarded % 4 == 0  # each round of all 64 rows meets every one of them
    unguarded, _ = read(tokenizer, dataset(kept + written), 40, tokens=128)
    assert len({tuple(row) for row in unguarded}) == 64


def test_held_out_texts_are_never_in_a_batch_but_are_counted(tokenizer, sentences, monkeypatch):
    monkeypatch.setattr(data, "HELD_OUT", 5)
    texts = sentences(320, 6, seed=1) + sentences(20, 120, seed=2)
    held_out = {tuple(tokens(tokenizer, text)) for text in texts if data.is_held_out(text)}
    assert 30 < len(held_out) < 110
    batches = Batches(dataset(texts), tokenizer, BLOCK, tokens=256, long_tokens=256, long_share=0.5)
    seen = {tuple(row[1:-1]) for row in rows(list(islice(batches, 60)))}
    assert len(seen) > 200
    assert not any(row == text[: len(row)] for row in seen for text in held_out)
    assert batches.held_out >= len(held_out)


def test_whether_a_text_is_held_out_depends_on_it_alone():
    texts = [f"text {i}" for i in range(20_000)] + ["\ud800 lone surrogate"]
    held_out = [text for text in texts if data.is_held_out(text)]
    assert 15 < len(held_out) < 80  # one in 512
    assert held_out[:2] == [text for text in texts[:2000] if data.is_held_out(text)][:2]
    assert data.is_held_out(held_out[0] + " ") is False


def test_one_long_document_of_sixteen_is_held_out_too(tokenizer, sentences, monkeypatch):
    long = [f"{i} " + "word " * 2000 for i in range(640)]
    assert 20 < sum(map(data.is_held_out_document, long)) < 60
    assert not any(data.is_held_out_document(text[:8000]) for text in long)
    assert all(data.is_held_out_document(text) for text in long if data.is_held_out(text))
    monkeypatch.setattr(data, "_HELD_OUT_DOCUMENTS", 1)
    with pytest.raises(ValueError, match="held out"):
        next(iter(Batches(dataset([*sentences(8, 6), *long[:4]]), tokenizer, BLOCK, tokens=256, long_share=0.5)))


def test_held_out_texts_come_evenly_from_all_columns_and_without_the_guarded(sentences, monkeypatch):
    monkeypatch.setattr(data, "HELD_OUT", 4)
    queries, passages = sentences(40, 5, seed=1), sentences(400, 30, seed=2)
    both = {"text": [*queries, *queries, *passages, " "], "column": ["query"] * 80 + ["passage"] * 401}
    wanted = [q for q in queries if data.is_held_out(q)]
    guard = frozenset([normalise(wanted[0])])
    chosen = held_out_texts(Dataset.from_dict(both), guard, 2 * len(wanted) - 2)
    assert [text for text in chosen if text in queries] == wanted[1:]
    assert len(chosen) == len(set(chosen)) == 2 * len(wanted) - 2
    assert all(data.is_held_out(text) for text in chosen)
    long = held_out_texts(Dataset.from_dict(both), guard, 10, long_chars=100)
    assert len(long) == 10
    assert min(map(len, long)) >= 100
    assert held_out_texts(dataset([text for text in queries if text not in wanted]), guard, 10) == []


def test_order_is_the_same_for_a_seed_and_another_for_another(tokenizer, texts):
    def first(seed):
        return list(islice(Batches(texts, tokenizer, BLOCK, tokens=256, long_tokens=150, seed=seed), 30))

    assert same(first(3), first(3))
    assert not same(first(3), first(4))


@pytest.mark.parametrize("long_share", [0.0, 0.3])
def test_batches_go_on_from_any_position_as_if_never_stopped(tokenizer, texts, long_share):
    """In the middle of a pool, before its last batch, after it, and in the next pool."""

    def batches(**kwargs):
        return Batches(texts, tokenizer, BLOCK, tokens=256, long_tokens=150, long_share=long_share, seed=1, **kwargs)

    running = batches()
    iterator = iter(running)
    whole, positions = [], []
    while len({position["short"] for position in positions}) < 3:
        positions.append(asdict(running.position))
        whole.append(next(iterator))
    whole += islice(iterator, 3)
    last = [i for i, (a, b) in enumerate(pairwise(positions)) if a["short"] != b["short"]]
    assert len(last) == 2
    for i in {0, 1, 4} | {i + j for i in last for j in (-2, -1, 0, 1)}:
        resumed = batches(position=Position(**json.loads(json.dumps(positions[i]))))
        assert same(list(islice(resumed, 4)), whole[i : i + 4])


@pytest.mark.parametrize("budget", [128, 256, 600])
def test_no_batch_has_more_tokens_than_allowed_pads_counted(tokenizer, texts, budget):
    sizes = []
    for ids, mask in islice(Batches(texts, tokenizer, BLOCK, tokens=budget, long_tokens=100, long_share=0.3), 60):
        assert ids.shape == mask.shape
        assert ids.numel() <= budget
        assert (mask.sum(1) > 2).all()
        assert (mask.diff(dim=1) <= 0).all()  # pads on the right only
        assert (ids[mask == 0] == tokenizer.pad_token_id).all()
        assert (ids[mask == 1] != tokenizer.pad_token_id).all()
        sizes.append(mask.sum().item())
    assert sum(sizes) > 0.75 * budget * len(sizes)  # and it is well used


def test_every_text_has_its_special_tokens(tokenizer, texts):
    for row in rows(list(islice(Batches(texts, tokenizer, BLOCK, tokens=256, long_tokens=150, long_share=0.3), 40))):
        assert row[0] == tokenizer.cls_token_id
        assert row[-1] == tokenizer.sep_token_id
        assert not {tokenizer.cls_token_id, tokenizer.sep_token_id} & set(row[1:-1])


def test_long_texts_give_spans_of_more_than_one_block(tokenizer, texts):
    seen = rows(list(islice(Batches(texts, tokenizer, BLOCK, tokens=256, long_tokens=150, long_share=0.3), 60)))
    spans = [row for row in seen if len(row) > BLOCK]
    assert max(map(len, spans)) == 150
    long = [tokens(tokenizer, text) for text in texts["text"] if len(text) > 6 * BLOCK]
    short = {tuple(tokens(tokenizer, text)[: BLOCK - 2]) for text in texts["text"] if len(text) <= 6 * BLOCK}
    assert all(tuple(row[1:-1]) in short for row in seen if len(row) <= BLOCK)  # no short rest of a long text
    for span in spans:
        assert any(span[1:-1] == text[i : i + len(span) - 2] for text in long for i in range(0, len(text), 148))


def test_long_texts_have_their_share_of_the_tokens(tokenizer, sentences, monkeypatch):
    monkeypatch.setattr(data, "_POOL_BATCHES", 64)
    texts = dataset(sentences(500, 20, seed=1) + sentences(50, 600, seed=2))
    batches = Batches(texts, tokenizer, BLOCK, tokens=600, long_tokens=300, long_share=0.2)
    lengths = []
    for ids, mask in batches:
        if batches.position.short:  # the second pool
            break
        lengths += [len(row) for row in rows([(ids, mask)])]
    share = sum(n for n in lengths if n > BLOCK) / sum(lengths)
    assert 0.15 < share < 0.25


def test_without_a_long_share_no_text_is_longer_than_a_block(tokenizer, texts):
    seen = rows(list(islice(Batches(texts, tokenizer, BLOCK, tokens=256, long_share=0.0), 60)))
    assert max(map(len, seen)) == BLOCK


def test_without_long_texts_their_share_goes_to_the_short(tokenizer, sentences):
    seen, _ = read(tokenizer, dataset(sentences(50, 10)), 20, tokens=128, long_share=0.5)
    assert len(seen) > 100


def contains(text: list[int], phrase: list[int]) -> bool:
    return any(text[i : i + len(phrase)] == phrase for i in range(len(text)))


def test_phrases_of_short_texts_are_read_too(tokenizer, sentences, monkeypatch):
    monkeypatch.setattr(data, "is_held_out", lambda text: False)
    texts = sentences(64, 20, seed=1)
    whole = [tokens(tokenizer, text) for text in texts]
    seen, _ = read(tokenizer, dataset(texts), 40, tokens=256, phrase_share=0.5)
    phrases = [row for row in seen if row not in whole]
    assert all(row in seen for row in whole)
    assert 0.4 < len(phrases) / (len(seen) - len(phrases)) < 0.6
    assert {len(phrase) for phrase in phrases} == {1, 2, 3, 4, 5, 6}
    assert all(any(contains(text, phrase) for text in whole) for phrase in phrases)


def test_guard_is_applied_to_phrases(tokenizer, sentences, monkeypatch):
    monkeypatch.setattr(data, "is_held_out", lambda text: False)
    texts = sentences(64, 20, seed=1)
    guard = frozenset(word for text in texts for word in text.split())
    seen, batches = read(tokenizer, dataset(texts), 40, tokens=256, phrase_share=0.5, guard=guard)
    assert {len(row) for row in seen} == {2, 3, 4, 5, 6, 20}
    assert batches.guarded > 0


def goes_on(span: list[int], first: list[int], then: list[int]) -> bool:
    """Whether a list is the beginning of the first and the rest of the second."""
    same = next((i for i, (a, b) in enumerate(zip(span, first, strict=True)) if a != b), len(span))
    return same > 0 and span[same:] == then[same:]


def test_some_long_texts_begin_with_a_passage_over_and_over(tokenizer, sentences, monkeypatch):
    monkeypatch.setattr(data, "_REPEATED_TOKENS", 8)
    texts = dataset(sentences(30, 10) + sentences(40, 300, seed=2))
    spans, _ = read(tokenizer, texts, 60, tokens=300, long_tokens=302, long_share=0.5, repeat_share=0.5)
    long = [tokens(tokenizer, text) for text in texts["text"][30:]]
    spans = [span for span in spans if len(span) > BLOCK]
    repeating = [span for span in spans if span not in long]
    assert 0.3 < len(repeating) / len(spans) < 0.7
    for span in repeating:
        assert any(goes_on(span, (text[:few] * 300)[:300], text) for text in long for few in range(1, 9))


def test_empty_texts_are_passed_over(tokenizer, sentences):
    seen, _ = read(tokenizer, dataset(["", " \n ", *sentences(30, 4)]), 20, tokens=128)
    assert {len(row) for row in seen} == {4}


def test_rows_without_a_text_are_passed_over(tokenizer, sentences, monkeypatch):
    seen, _ = read(tokenizer, dataset([None, *sentences(30, 4)]), 20, tokens=128)
    assert {len(row) for row in seen} == {4}
    monkeypatch.setattr(data, "HELD_OUT", 1)
    assert held_out_texts(dataset([None, "a text"]), frozenset(), 10) == ["a text"]


@pytest.fixture
def table():
    return {
        "query": ["one query", "two query", "three query"],
        "text": ["one text", "two text", "three text"],
        "source": ["web"] * 3,
        "id": ["a", "b", "c"],
        "score": [1.0, 2.0, 3.0],
    }


def write(table: dict, path) -> str:
    if path.suffix == ".parquet":
        Dataset.from_dict(table).to_parquet(path)
    else:
        lines = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_all_columns_of_text_are_read_as_rows(tmp_path, table, suffix):
    found = read_texts([write(table, tmp_path / f"rows{suffix}")])
    wanted = {(x, "query") for x in table["query"]} | {(x, "text") for x in table["text"]}
    assert len(found) == 6
    assert set(zip(found["text"], found["column"], strict=True)) == wanted


def test_files_of_both_kinds_are_read_together(tmp_path, table):
    plain = {"passage": ["a passage", "another"]}
    found = read_texts([write(table, tmp_path / "a.parquet"), write(plain, tmp_path / "b.jsonl")])
    assert len(found) == 8
    assert {"a passage", "one query", "three text"} <= set(found["text"])
    assert set(found["column"]) == {"query", "text", "passage"}


def test_texts_that_were_read_can_be_batched(tmp_path, tokenizer, table):
    seen, _ = read(tokenizer, read_texts([write(table, tmp_path / "a.jsonl")]), 5, tokens=64)
    wanted = table["query"] + table["text"]
    assert {tuple(row) for row in seen} == {tuple(tokens(tokenizer, text)) for text in wanted}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_file_without_a_column_of_text_is_refused_by_name(tmp_path, suffix):
    good = write({"text": ["a"]}, tmp_path / "good.jsonl")
    bad = write({"id": ["a"], "score": [1.0]}, tmp_path / f"numbers{suffix}")
    with pytest.raises(ValueError, match=rf"numbers\{suffix} has no column of text.*id, score"):
        read_texts([good, bad])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\noops\n', "a.jsonl cannot be read as json"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.jsonl.gz", '{"text": "x"}', "a.jsonl.gz cannot be read as gzip"),
        ("a.parquet", "no parquet", "a.parquet cannot be read as parquet"),
    ],
)
def test_file_that_is_not_what_its_name_says_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_texts([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["a.JSONL", "a.ndjson", "a.jsonl.gz", "a.JSONL.GZ"])
def test_jsonl_by_another_name_is_read(tmp_path, name):
    row = b'{"text": "one text"}\n'
    (tmp_path / name).write_bytes(gzip.compress(row, mtime=0) if name.lower().endswith(".gz") else row)
    assert read_texts([str(tmp_path / name)])["text"][:] == ["one text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("guard.txt", b"caf\xe9", "guard.txt is not UTF-8"),
        ("guard.txt.xz", lzma.compress(b"caf\xe9"), "guard.txt.xz is not UTF-8"),
        ("guard.txt.xz", b"plain", "guard.txt.xz cannot be read as xz"),
    ],
)
def test_guard_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_guard(tmp_path / name)


def test_guard_is_read_without_its_byte_order_mark(tmp_path):
    (tmp_path / "guard.txt").write_text("one text", encoding="utf-8-sig")
    assert read_guard(tmp_path / "guard.txt") == {"one text"}


def test_a_list_of_texts_is_one_text(tmp_path):
    """Such as the sections of a document."""
    path = tmp_path / "sections.parquet"
    rows = {"title": ["a", "b"], "sections": [["one", "two"], None], "source": ["x", "x"], "count": [[1], [2]]}
    Dataset.from_dict(rows).to_parquet(path)
    found = read_texts([str(path)])
    assert found["text"][:] == ["a", "b", "one\ntwo", ""]
    assert found["column"][:] == ["title", "title", "sections", "sections"]


def test_held_out_texts_are_known_by_their_genre(tmp_path):
    texts = [f"text number {i}" for i in range(4000)]
    rows = {"text": texts, "genre": ["tales", "talks"] * 2000}
    data = read_texts([write(rows, tmp_path / "genres.jsonl"), write({"text": texts}, tmp_path / "plain.jsonl")])
    assert set(data["genre"]) == {"tales", "talks", None}
    guarded = next(text for text in texts[::2] if data_module.is_held_out(text))
    found = held_out_genres(data, frozenset([normalise(guarded)]))
    assert sorted(found) == ["tales", "talks"]
    assert found["talks"] == [text for text in texts[1::2] if data_module.is_held_out(text)]
    assert found["tales"] == [text for text in texts[::2] if data_module.is_held_out(text) and text != guarded]
