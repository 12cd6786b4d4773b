"""Losses of tuning: the same value and gradients as without caching, and an anchor to the base."""

from __future__ import annotations

import pytest
import torch
from folders import build
from sentence_transformers.sentence_transformer import losses
from torch.nn import functional as F

import lam_model
from lam_model.training.losses import (
    Anchored,
    BaseVectors,
    contrastive,
    guided,
    near,
    scored,
    teacher_similarities,
    triplet,
)
from lam_model.training.teacher import Teacher
from lam_model.training.weights import train_only_deltanet, trained


@pytest.fixture(scope="module")
def folder(tiny_base, tiny_weights, tmp_path_factory):
    return build(tmp_path_factory.mktemp("tiny") / "lam", tiny_weights, tiny_base)


@pytest.fixture
def model(folder):
    model = lam_model.load(folder)
    train_only_deltanet(model[0].auto_model)
    return model


@pytest.fixture(scope="module")
def teacher(tiny_base):
    return Teacher(tiny_base, 64)


@pytest.fixture
def columns(model, sentences):
    """Seven queries, their documents and two negatives of each, of odd lengths, tokenised."""
    texts = [[text for words in range(3, 10) for text in sentences(1, words, seed=words + 20 * i)] for i in range(4)]
    return [model.tokenizer(column, padding=True, return_tensors="pt") for column in texts]


def vectors(model, columns):
    return [model(dict(column))["sentence_embedding"] for column in columns]


def gradients(model):
    """Of all that is trained, but the factors of states, which texts of one block have no use for."""
    return {name: p.grad.clone() for name, p in trained(model[0].auto_model).items() if not name.endswith(".carry")}


OBJECTIVES = {
    "contrastive": lambda model: contrastive(model, 0.05),
    "guided": lambda model: guided(model, 0.05, 0.1),
    "near": lambda model: near(0.05),
    "triplet": lambda model: triplet(model),
    "teacher": lambda model: teacher_similarities(model, 0.05),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dims", [None, [48, 16]])
def test_cached_gradients_are_those_of_the_whole_batch(model, teacher, columns, name, dims):
    labels = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)) if name == "teacher" else None
    base = BaseVectors(teacher)
    objective = OBJECTIVES[name](model)
    loss = Anchored(model, objective, base, 0.5, mini_batch_tokens=40)
    loss = losses.MatryoshkaLoss(model, loss, dims) if dims else loss
    value = loss([dict(column) for column in columns], labels)
    value.backward()
    cached = gradients(model)
    model.zero_grad()
    at_once = 0
    for size in dims or [48]:
        found = [x[:, :size] for x in vectors(model, columns)]
        target = [F.normalize(base(column)[:, :size], dim=-1) for column in columns]
        distances = torch.cat([1 - F.cosine_similarity(x, y) for x, y in zip(found, target, strict=True)])
        at_once = at_once + objective(found, target, labels) + 0.5 * distances.mean()
    at_once.backward()
    assert torch.allclose(value, at_once, rtol=1e-5)
    for parameter, gradient in gradients(model).items():
        assert torch.allclose(cached[parameter], gradient, rtol=1e-3, atol=1e-5), parameter


def test_only_deltanet_layers_get_gradients(model, teacher, columns):
    Anchored(model, contrastive(model, 0.05), BaseVectors(teacher), 0.5)([dict(c) for c in columns], None).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".delta_net." in name and not name.endswith(".carry")), name


def test_base_vectors_are_the_teachers_and_remembered(teacher, columns):
    base, calls = BaseVectors(teacher), []
    hook = teacher.register_forward_hook(lambda _, inputs, output: calls.append(len(inputs[0])))
    found = base(columns[0])
    expected = teacher(columns[0]["input_ids"], columns[0]["attention_mask"]).pooled
    calls.clear()
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(base(columns[0]), found)
    assert not calls
    mixed = {name: torch.cat([columns[0][name][:2], columns[0][name][:1]]) for name in ("input_ids", "attention_mask")}
    assert torch.equal(base(mixed), found[[0, 1, 0]])
    hook.remove()


def test_a_heavy_anchor_pulls_towards_the_base(model, teacher, columns):
    loss = Anchored(model, contrastive(model, 0.05), BaseVectors(teacher), 1000.0)
    optimizer = torch.optim.Adam(trained(model[0].auto_model).values(), lr=1e-3)
    base = BaseVectors(teacher)

    def cosine():
        with torch.no_grad():
            pairs = zip(vectors(model, columns), map(base, columns), strict=True)
            return torch.cat([F.cosine_similarity(x, y) for x, y in pairs]).mean()

    before = cosine()
    for _ in range(10):
        loss([dict(column) for column in columns], None).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert cosine() > before + 0.01


def test_contrastive_is_the_cross_entropy_of_cosines():
    x = [F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(i)), dim=-1) for i in range(3)]
    cosines = x[0] @ torch.cat(x[1:]).T / 0.1
    assert torch.allclose(contrastive(None, 0.1)(x, [], None), F.cross_entropy(cosines, torch.arange(5)))


def test_guided_leaves_out_what_the_base_finds_closer(model):
    query, near, far = torch.eye(4)[:1], torch.tensor([[0.9, 0.4359, 0, 0]]), torch.tensor([[0.1, 0.995, 0, 0]])
    x = [query, far, near]
    # The base finds the negative closer than the answer by 0.8: no negative with a margin of 0.5, one with 0.9.
    assert guided(model, 0.1, 0.5)(x, x, None) < 1e-6
    assert guided(model, 0.1, 0.9)(x, x, None) > 1


def test_triplet_is_zero_where_all_negatives_are_far_enough():
    query, near, far = torch.eye(4)[:1], torch.tensor([[0.9, 0.4359, 0, 0]]), torch.tensor([[0.1, 0.995, 0, 0]])
    assert triplet(None, 0.2)([query, near, far], [], None) == 0
    assert torch.isclose(
        triplet(None, 0.2)([query, far, near, far], [], None), torch.tensor((1.0 + 0.2) / 2), atol=1e-3
    )


def test_teacher_similarities_are_matched_at_the_least_loss():
    x = [F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(i)), dim=-1) for i in range(4)]
    cosines = torch.stack([(x[0] * y).sum(-1) for y in x[1:]], dim=1)
    objective = teacher_similarities(None, 0.05)
    assert objective(x, [], cosines).abs() < 1e-5
    expected = F.kl_div((cosines / 0.05).log_softmax(1), (-cosines / 0.05).softmax(1), reduction="batchmean")
    assert torch.allclose(objective(x, [], -cosines), expected, rtol=1e-4)


def test_near_is_the_distance_to_the_base():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert torch.isclose(near(0.1)([x], [y], None), torch.tensor(0.5 / 0.1))


def test_scored_wants_the_order_of_the_scores():
    x = torch.tensor([[1.0, 0.0]] * 3)
    y = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), dim=-1)
    good = scored(None)([x, y], [], torch.tensor([1.0, 0.5, 0.0]))
    assert good < 0.1 < scored(None)([x, y], [], torch.tensor([0.0, 0.5, 1.0]))
