"""Context training from end to end on a tiny base: it reads as passages are read, it learns, it can be killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import BLOCK
from safetensors.torch import load_file
from transformers import TrainerCallback

from lam_model.reading.passages import encode_passages
from lam_model.reading.torch_reader import TorchReader
from lam_model.training import context, context_data, data, tune
from lam_model.training.context import ContextTraining, step_loss
from lam_model.training.context_steps import Step, in_sections
from lam_model.training.recipe import ContextRecipe
from lam_model.training.weights import trained

RECIPE = ContextRecipe(
    steps=12, learning_rate=2e-3, warmup_steps=2, step_documents=3, step_pairs=6, anchor_texts=4, evaluate_steps=6
)


@pytest.fixture(scope="module", autouse=True)
def _small_scale(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune.constants, "HF_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(data, "HELD_OUT", 8)
        yield


@pytest.fixture(scope="module")
def files(sentences, tmp_path_factory):
    """A set of questions, documents with sections and without, pairs and plain texts."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "stories").mkdir()
    parts = [sentences(9, 18, seed=i) for i in range(34)]
    titles = sentences(34, 3, seed=99)
    documents = [{"_id": f"d{i}", "title": titles[i], "text": ". ".join(some)} for i, some in enumerate(parts)]
    queries = []
    for i, some in enumerate(parts):
        for j in (1, 4, 7):
            start = documents[i]["text"].index(some[j])
            words = some[j].split()[:6]
            queries.append({"query": " ".join(words), "document": f"d{i}", "spans": [[start, start + len(some[j])]]})
    rows = {
        "stories/documents.jsonl": documents,
        "stories/queries.jsonl": queries,
        "pairs.jsonl": [{"query": some[0][:30], "passage": some[0], "source": "a" if i % 2 else "b"}
                        for i, some in enumerate(parts)],
        "plain.jsonl": [{"text": text, "genre": "prose"} for text in sentences(60, 9, seed=77)],
        "long.jsonl": [{"title": titles[i], "text": ". ".join(parts[i])} for i in range(20)],
    }  # fmt: skip
    for name, some in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    sections = [
        {"title": titles[i], "headings": ["", *sentences(2, 3, seed=i)], "sections": parts[i][:3]} for i in range(9)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(sections), folder / "sections.parquet")
    return folder


@pytest.fixture(scope="module")
def begin(tiny_base, tiny_weights, files):
    def begin(out: Path, recipe: ContextRecipe = RECIPE) -> ContextTraining:
        start = tune.start(out, tiny_weights, tiny_base, device="cpu")
        documents = [files / "long.jsonl", files / "sections.parquet"]
        steps, watched = context_data.prepare(
            [files / "stories"], documents, [files / "pairs.jsonl"], [str(files / "plain.jsonl")], ["a"], frozenset(),
            start, recipe,
        )  # fmt: skip
        return ContextTraining(start.model, start.base, steps, watched, out, recipe, {"command": "lam train context"})

    return begin


@pytest.fixture(scope="module")
def finished(begin, tmp_path_factory):
    run = begin(tmp_path_factory.mktemp("finished") / "run")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.run()
    return run, before


def test_only_the_deltanet_layers_are_trained_and_the_factors_among_them(finished):
    run, before = finished
    names = trained(run.model)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in names), name
    written = load_file(run.out / "deltanet.safetensors")
    assert written.keys() == names.keys()
    assert all(tensor.dtype == torch.float16 for tensor in written.values())


def test_log_and_summary_say_what_was_done(finished):
    run, _ = finished
    log = [json.loads(line) for line in (run.out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "contrast", "distance"} <= log[1].keys()
    summary = json.loads((run.out / "run.json").read_text())
    assert summary["command"] == "lam train context"
    assert summary["recipe"]["steps"] == 12
    for row in (summary["start"], summary["final"]):
        assert {
            "eval_stories",
            "eval_stories_within",
            "eval_stories_alone",
            "eval_cosine_prose",
            "eval_score",
        } <= row.keys()
        assert 0 < row["eval_cosine_prose"] <= 100.01


class _Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            raise KeyboardInterrupt


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(begin, finished, tmp_path):
    run = begin(tmp_path / "run")
    run.add_callback(_Kill())
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not (tmp_path / "run" / "deltanet.safetensors").exists()
    again = begin(tmp_path / "run")
    again.run()
    wanted = load_file(finished[0].out / "deltanet.safetensors")
    for name, tensor in load_file(tmp_path / "run" / "deltanet.safetensors").items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-3)


def test_the_factors_start_as_the_recipe_says(begin, tmp_path):
    run = begin(tmp_path / "run", replace(RECIPE, carry=(0.5, 0.25)))
    for name, factors in trained(run.model).items():
        if name.endswith(".carry"):
            assert factors[0].unique().tolist() == [0.5]
            assert factors[1].unique().tolist() == [0.25]
    begin(tmp_path / "run", replace(RECIPE, carry=(0.5, 0.25)))  # the same recipe, read from the folder


def test_a_folder_holds_one_recipe(begin, finished, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(finished[0].out / "recipe.json", out)
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        begin(out, replace(RECIPE, steps=13))


def test_a_step_is_a_function_of_its_number(finished):
    steps = finished[0].train_dataset
    kinds = set()
    for number in range(40):
        one, again = steps[number], steps[number]
        assert one.queries == again.queries
        assert one.documents == again.documents
        assert np.array_equal(one.right, again.right)
        passages = sum(len(parts) - one.context for parts in one.documents)
        assert one.right.shape == (len(one.queries), passages)
        assert one.right.any(1).all()
        assert all(len(part) <= BLOCK for parts in one.documents for part in parts)
        assert len(one.texts) >= 4
        kinds.add(one.context)
    assert kinds == {True, False}


def test_passages_are_read_as_encode_passages_reads_them(finished, sentences):
    run, _ = finished
    model = run._whole.eval()
    tokenizer = model.tokenizer
    chunks = [sentences(5, 12, seed=1), sentences(3, 20, seed=2)]
    documents = []
    for some in chunks:
        words = tokenizer(" ".join(some), add_special_tokens=False)["input_ids"][: BLOCK - 2]
        documents.append([[tokenizer.cls_token_id, *words, tokenizer.sep_token_id], *tokenizer(some)["input_ids"]])
    vectors, numbers = context._part_vectors(run.model, documents)
    wanted = np.concatenate([one.vectors for one in encode_passages(TorchReader(model), chunks)])
    found = context._in_document(vectors, numbers)
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-5)
    assert found.requires_grad


def test_the_loss_is_that_of_the_paper_and_the_anchor(finished):
    run, _ = finished
    step = next(step for step in map(run.train_dataset.__getitem__, range(40)) if step.context)
    with torch.no_grad():
        loss, parts = step_loss(run.model, step, run._base, run.recipe)
        vectors, numbers = context._part_vectors(run.model, step.documents)
        asked, _ = context._part_vectors(run.model, [[query] for query in step.queries])
        passages = context._in_document(vectors, numbers)
    share = (asked @ passages.T / run.recipe.temperature).softmax(1).numpy()
    contrast = -np.log((share * step.right).sum(1)).mean()
    assert float(parts["contrast"]) == pytest.approx(contrast, rel=1e-4)
    assert float(loss) == pytest.approx(contrast + run.recipe.anchor * float(parts["distance"]), rel=1e-4)


def test_gradients_reach_the_factors_through_the_passages(finished):
    run, _ = finished
    step = next(step for step in map(run.train_dataset.__getitem__, range(40)) if step.context)
    factors = [p for name, p in trained(run.model).items() if name.endswith(".carry")]
    loss, _ = step_loss(run.model, step, run._base, run.recipe)
    assert all((gradient != 0).any() for gradient in torch.autograd.grad(loss, factors))


def test_sections_become_a_document_whose_headings_are_asked_for():
    document, questions = in_sections("Guide", ["", "Setup", "Use"], ["What it is.", "Install it.", ""])
    assert document.title == "Guide"
    assert document.text == "What it is.\nSetup\nInstall it.\nUse\n"
    assert [question.query for question in questions] == ["Guide Setup", "Setup"]
    ((start, end),) = questions[0].spans
    assert document.text[start:end].strip() == "Install it."


def test_what_is_missing_is_named(begin, files, tmp_path):
    start = tune.start(tmp_path / "run")
    plain = [str(files / "plain.jsonl")]
    with pytest.raises(ValueError, match="give --sets"):
        context_data.prepare([], [], [], plain, [], frozenset(), start, RECIPE)
    (tmp_path / "bad.jsonl").write_text('{"query": "a"}\n')
    with pytest.raises(ValueError, match=r"bad.jsonl, row 0 has no `passage`"):
        context_data.prepare([files / "stories"], [], [tmp_path / "bad.jsonl"], plain, [], frozenset(), start, RECIPE)


def test_steps_are_no_mappings_that_a_trainer_would_take_apart():
    assert not isinstance(Step([], [], True, np.zeros((0, 0)), []), (dict, tuple))
