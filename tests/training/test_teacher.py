"""What the base says of a text, in one piece and in several."""

from __future__ import annotations

import pytest
import torch
from conftest import BLOCK
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from lam_model.training.teacher import Teacher

TEXTS = ["A man is eating food.", "x", "The girl is carrying a baby, which she has not done before in this city. " * 2]


@pytest.fixture(scope="module")
def teacher(tiny_base) -> Teacher:
    return Teacher(tiny_base, BLOCK)


def batch(teacher: Teacher, *lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random texts of so many tokens, special tokens counted, padded."""
    tokenizer = teacher.tokenizer
    ids = torch.randint(5, 90, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))
    ends = torch.tensor(lengths)[:, None]
    position = torch.arange(ids.shape[1])
    ids[:, 0] = tokenizer.cls_token_id
    ids = ids.masked_fill(position == ends - 1, tokenizer.sep_token_id)
    return ids.masked_fill(position >= ends, tokenizer.pad_token_id), (position < ends).long()


@pytest.mark.parametrize(("which", "block"), [("tiny_base", BLOCK), ("base", 512)])
def test_vector_of_a_text_of_one_block_is_what_the_base_encodes(which, block, request):
    folder = request.getfixturevalue(which)
    teacher = Teacher(folder, block)
    encoded = teacher.tokenizer(TEXTS, padding=True, truncation=True, max_length=block, return_tensors="pt")
    wanted = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    found = teacher(encoded["input_ids"], encoded["attention_mask"])
    torch.testing.assert_close(found.pooled, wanted, rtol=0, atol=1e-5)
    assert torch.equal(found.mask, encoded["attention_mask"])


def test_attention_and_hidden_states_are_those_of_the_layers(teacher):
    """Each layer's attention output, put through the rest of the layer, gives its hidden state."""
    found = teacher(*batch(teacher, 20, 9))
    assert len(found.hidden_states) == 4
    assert len(found.attention) == 3
    with torch.no_grad():
        for i, layer in enumerate(teacher.bert.encoder.layer):
            x = layer.attention.output.LayerNorm(found.hidden_states[i] + found.attention[i])
            x = layer.output(layer.intermediate(x), x)
            torch.testing.assert_close(found.hidden_states[i + 1], x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [BLOCK + 1, BLOCK + 2, 2 * BLOCK, 150])
def test_every_piece_of_a_long_text_is_read_as_a_text_of_its_own(teacher, length):
    """[CLS] and [SEP] in the place of its first and last tokens; its vector is weighted by its tokens."""
    ids, mask = batch(teacher, length)
    found = teacher(ids, mask)
    total = 0
    for start in range(0, length, BLOCK):
        piece = ids[:, start : start + BLOCK].clone()
        piece[:, -1] = teacher.tokenizer.sep_token_id
        piece[:, 0] = teacher.tokenizer.cls_token_id
        read = teacher.bert(input_ids=piece).last_hidden_state
        total = total + read.sum(1)  # the mean, times the number of tokens
        torch.testing.assert_close(found.hidden_states[-1][:, start : start + BLOCK], read, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pooled, F.normalize(total, dim=-1), rtol=0, atol=1e-5)


def test_replaced_tokens_are_no_targets(teacher):
    """What gave way to [CLS] or [SEP] was not read by the teacher; the text's own [CLS] and [SEP] were."""
    ids, mask = batch(teacher, 150, 2 * BLOCK, 10)
    found = teacher(ids, mask).mask
    assert found.shape == mask.shape
    left_out = [(mask[i] > found[i]).nonzero().flatten().tolist() for i in range(3)]
    assert left_out == [[63, 64, 127, 128], [63, 64], []]
    assert (found <= mask).all()


def test_targets_of_a_long_batch_have_the_shape_of_the_batch(teacher):
    ids, mask = batch(teacher, 150, 20)
    found = teacher(ids, mask)
    for x in (*found.hidden_states, *found.attention):
        assert x.shape == (2, 150, 48)


def test_pieces_of_pads_alone_change_nothing(teacher):
    """A short text beside a long one: its later pieces hold nothing."""
    ids, mask = batch(teacher, 150, 20, BLOCK)
    found = teacher(ids, mask)
    assert all(x.isfinite().all() for x in (*found.hidden_states, *found.attention, found.pooled))
    for i, length in ((1, 20), (2, BLOCK)):
        alone = teacher(ids[i : i + 1, :length], mask[i : i + 1, :length])
        torch.testing.assert_close(found.pooled[i], alone.pooled[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.hidden_states[-1][i, :length], alone.hidden_states[-1][0], rtol=0, atol=1e-5)


def test_given_batch_is_left_alone(teacher):
    ids, mask = batch(teacher, 150, 20)
    before = ids.clone(), mask.clone()
    teacher(ids, mask)
    assert torch.equal(ids, before[0])
    assert torch.equal(mask, before[1])


def test_teacher_is_frozen(teacher):
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(*batch(teacher, 20)).pooled.requires_grad
