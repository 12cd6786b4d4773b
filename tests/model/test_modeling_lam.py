"""The model: what a vector may depend on, long texts block by block, weights that do not fit."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from conftest import BLOCK
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModel

from lam_model.folder.tensors import read_config
from lam_model.model.configuration_lam import LamConfig
from lam_model.model.delta_rule import delta_rule
from lam_model.model.modeling_lam import LamModel
from lam_model.training.weights import trained

VOCAB = 90


def token_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random tokens, none of them special."""
    return torch.randint(5, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def vectors(model: LamModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the mask, unit length: what pooling and normalising make of the hidden states."""
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return F.normalize((hidden * mask[..., None]).sum(1), dim=-1)


@pytest.fixture(scope="module")
def minilm_sized(lively_gates) -> LamModel:
    """MiniLM's sizes with random weights and a small vocabulary."""
    torch.manual_seed(0)
    return lively_gates(LamModel(LamConfig(vocab_size=VOCAB)))


@torch.no_grad()
def readable_forward(model: LamModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """All hidden states of one text, block by block: left to right from the states of the first block and the last."""
    config, embeddings = model.config, model.embeddings
    size, heads, block = config.hidden_size, config.num_attention_heads, config.block_size
    position = torch.tensor([0] + [max(t % block, 1) for t in range(1, ids.shape[1])])
    x = embeddings.word_embeddings.weight[ids] + embeddings.token_type_embeddings.weight[0]
    x = embeddings.LayerNorm(x + embeddings.position_embeddings.weight[position])
    states = [x]
    for layer in model.layers:
        net = layer.delta_net
        q, k, v, gates = net.in_proj(x).split([size, size, size, 4 * heads], dim=-1)
        q, k, v = (y.unflatten(-1, (heads, size // heads)) for y in (q, k, v))
        q, k = (F.silu(y) / F.silu(y).norm(dim=-1, keepdim=True) for y in (q, k))
        write_right, write_left, keep_right, keep_left = gates.sigmoid().chunk(4, dim=-1)
        of_beginning, of_last = net.carry[..., None, None]
        rightwards, state, beginning = [], None, None
        for part in zip(*(y.split(block, dim=1) for y in (q, k, v, write_right, keep_right.log())), strict=True):
            start = None if state is None else of_beginning * beginning + of_last * state
            output, state = delta_rule(*part, start, backend="naive")
            beginning = beginning if rightwards else state
            rightwards.append(output)
        leftwards = [
            delta_rule(*part, reverse=True, backend="naive")[0]
            for part in zip(*(y.split(block, dim=1) for y in (q, k, v, write_left, keep_left.log())), strict=True)
        ]
        mixed = (torch.cat(rightwards, dim=1) + torch.cat(leftwards, dim=1)) * net.scale[:, None]
        x = layer.delta_net_norm(x + net.out_proj(mixed.flatten(-2)))
        x = layer.norm(x + layer.down(F.gelu(layer.up(x))))
        states.append(x)
    return states


@pytest.mark.parametrize("length", [1, 2, BLOCK, BLOCK + 1, 2 * BLOCK + 22])
def test_forward_is_what_a_readable_one_gives_for_the_whole_text_at_once(tiny_lam, length):
    ids = token_ids(1, length)
    with torch.no_grad():
        output = tiny_lam(input_ids=ids, output_hidden_states=True)
    assert len(output.hidden_states) == tiny_lam.config.num_hidden_layers + 1
    for found, wanted in zip(output.hidden_states, readable_forward(tiny_lam, ids), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@pytest.mark.parametrize("length", [513, 1500, 5000])
@torch.no_grad()
def test_block_by_block_with_carried_state_equals_at_once(minilm_sized, length):
    ids = token_ids(1, length)
    at_once, state, total = minilm_sized(input_ids=ids, output_state=True), None, 0
    for start in range(0, length, 512):
        block = ids[:, start : start + 512]
        output = minilm_sized.forward_block(block, torch.ones_like(block), state, first_block=start == 0)
        state = output.state
        total = total + output.last_hidden_state.sum(1)
    torch.testing.assert_close(total / length, at_once.last_hidden_state.mean(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.last_hidden_state, at_once.last_hidden_state[:, start:], rtol=0, atol=1e-5)
    torch.testing.assert_close(state, at_once.state, rtol=0, atol=1e-5)
    assert state.shape == (1, 6, 2, 12, 32, 32)
    assert state.dtype == torch.float32
    forgetful = minilm_sized.forward_block(block, torch.ones_like(block), None, first_block=False)
    assert (forgetful.last_hidden_state - output.last_hidden_state).abs().max() > 1e-3  # the state matters here


@pytest.mark.parametrize("pad", [0, 7])
@torch.no_grad()
def test_padding_and_company_do_not_change_a_vector(tiny_lam, pad):
    """Texts of one to three blocks, alone and in one batch, whatever stands at the pads."""
    lengths = [1, 3, BLOCK - 1, BLOCK, BLOCK + 1, 150]
    ids = token_ids(len(lengths), 150 + 20)
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    together = vectors(tiny_lam, ids.masked_fill(mask == 0, pad), mask)
    for i, length in enumerate(lengths):
        alone = vectors(tiny_lam, ids[i : i + 1, :length], mask[i : i + 1, :length])
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-5)
    assert (together[4] - together[5]).abs().max() > 0.01  # and vectors do differ from text to text


@torch.no_grad()
def test_padding_does_not_change_the_state(tiny_lam):
    ids = token_ids(1, 100)
    mask = torch.ones_like(ids)
    padded = tiny_lam(input_ids=F.pad(ids, (0, 70)), attention_mask=F.pad(mask, (0, 70)), output_state=True)
    alone = tiny_lam(input_ids=ids, output_state=True)
    torch.testing.assert_close(padded.state, alone.state, rtol=0, atol=1e-5)


@torch.no_grad()
def test_no_mask_means_no_pads(tiny_lam):
    ids = token_ids(2, 70)
    with_mask = tiny_lam(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert torch.equal(tiny_lam(input_ids=ids).last_hidden_state, with_mask)


def change_at(model: LamModel, ids: torch.Tensor, where: int) -> torch.Tensor:
    """How much each token's hidden state changes when another token does, (length)."""
    other = ids.clone()
    other[0, where] = 5 + (other[0, where] - 4) % (VOCAB - 5)
    with torch.no_grad():
        before, after = (model(input_ids=x).last_hidden_state for x in (ids, other))
    return (before - after).abs().amax(-1)[0]


def test_a_token_sees_all_others_of_its_block(tiny_lam):
    assert (change_at(tiny_lam, token_ids(1, BLOCK), BLOCK - 1) > 1e-6).all()
    assert (change_at(tiny_lam, token_ids(1, BLOCK), 0) > 1e-6).all()


def test_a_later_block_does_not_change_an_earlier_one(tiny_lam):
    change = change_at(tiny_lam, token_ids(1, 2 * BLOCK), BLOCK)
    assert (change[:BLOCK] == 0).all()
    assert (change[BLOCK:] > 1e-6).all()


def test_an_earlier_block_changes_a_later_one(tiny_lam):
    assert (change_at(tiny_lam, token_ids(1, 2 * BLOCK), BLOCK - 1)[BLOCK:] > 1e-6).all()


@torch.no_grad()
def test_only_the_first_token_of_a_text_has_position_0(tiny_lam):
    seen = []
    tiny_lam.embeddings.position_embeddings.register_forward_hook(lambda _, args, __: seen.append(args[0].flatten()))
    tiny_lam(input_ids=token_ids(1, 3 * BLOCK + 5))
    wanted = [0] + [max(t % BLOCK, 1) for t in range(1, 3 * BLOCK + 5)]
    assert torch.cat(seen).tolist() == wanted


@torch.no_grad()
def test_base_only_equals_the_base_with_its_attention_output_set_to_zero(tiny_base, tiny_lam):
    bert = AutoModel.from_pretrained(tiny_base)
    for layer in bert.encoder.layer:
        layer.attention.output.dense.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
    config = copy.deepcopy(tiny_lam.config)
    config.base_only = True
    model = LamModel(config).eval()
    model.load_state_dict(tiny_lam.state_dict())
    ids = token_ids(3, BLOCK)
    found = model(input_ids=ids, output_hidden_states=True)
    wanted = bert(input_ids=ids, output_hidden_states=True).hidden_states
    assert model(input_ids=ids, output_state=True).state is None
    for x, y in zip(found.hidden_states, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-5)
    assert (tiny_lam(input_ids=ids).last_hidden_state - wanted[-1]).abs().max() > 0.1


@torch.no_grad()
def test_base_only_reads_texts_of_several_blocks(tiny_lam):
    config = copy.deepcopy(tiny_lam.config)
    config.base_only = True
    ids = token_ids(1, 2 * BLOCK + 1)
    assert LamModel(config)(input_ids=ids).last_hidden_state.shape == (1, 2 * BLOCK + 1, config.hidden_size)


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@torch.no_grad()
def test_memory_does_not_grow_with_the_square_of_the_length(tiny_lam):
    largest = {}
    for length in (1024, 4096):
        with LargestTensor() as mode:
            tiny_lam(input_ids=token_ids(1, length))
        largest[length] = mode.elements
    assert largest[1024] >= 1024 * tiny_lam.config.hidden_size  # the last hidden states themselves
    assert largest[4096] <= 4 * largest[1024]


def test_gradient_flows_to_every_trained_parameter(tiny_lam):
    output = tiny_lam(input_ids=token_ids(2, 100)).last_hidden_state
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    parameters = trained(tiny_lam)
    assert len(parameters) == 6 * tiny_lam.config.num_hidden_layers
    for name, parameter in parameters.items():
        assert parameter.grad.isfinite().all(), name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        assert (rows.abs().amax(1) > 0).all(), name  # each query, key, value, write strength and decay


@torch.no_grad()
def test_bfloat16_model_gives_finite_vectors_near_those_in_float32(tiny_lam):
    ids, mask = token_ids(2, 150), torch.ones(2, 150, dtype=torch.long)
    wanted = vectors(tiny_lam, ids, mask)
    output = tiny_lam.to(torch.bfloat16)(input_ids=ids, attention_mask=mask, output_state=True)
    assert output.last_hidden_state.dtype == torch.bfloat16
    assert output.state.dtype == torch.float32
    found = vectors(tiny_lam, ids, mask).float()
    assert found.isfinite().all()
    assert (F.cosine_similarity(found, wanted) > 0.98).all()


@torch.no_grad()
def test_without_return_dict_a_tuple_with_the_hidden_states_first(tiny_lam):
    ids = token_ids(1, 70)
    unused = {"token_type_ids": torch.zeros_like(ids)}
    last, state = tiny_lam(input_ids=ids, output_state=True, return_dict=False, **unused)
    assert torch.equal(last, tiny_lam(input_ids=ids).last_hidden_state)
    assert state.shape == (1, 3, 2, 4, 12, 12)


@torch.no_grad()
def test_saved_and_loaded_model_is_exactly_the_same(tiny_lam, tmp_path):
    tiny_lam.save_pretrained(tmp_path)
    for loaded in (LamModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, LamModel)
        assert loaded.state_dict().keys() == tiny_lam.state_dict().keys()
        for name, weight in tiny_lam.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name
        ids = token_ids(2, 100)
        assert torch.equal(loaded(input_ids=ids).last_hidden_state, tiny_lam(input_ids=ids).last_hidden_state)


def test_loading_info_is_returned_where_it_is_asked_for(tiny_lam, tmp_path):
    tiny_lam.save_pretrained(tmp_path)
    model, info = LamModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, LamModel)
    assert not any(info.values())


WRITE_STRENGTH = "layers.1.delta_net.in_proj.weight"
FROZEN = "layers.2.up.bias"


@pytest.mark.parametrize("name", [WRITE_STRENGTH, FROZEN])
@pytest.mark.parametrize("fault", ["missing", "left over", "misshapen", "nan", "infinite"])
def test_weights_that_do_not_fit_are_refused_by_name(tiny_lam, tmp_path, name, fault):
    tiny_lam.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weight = weights.pop(name)
    if fault == "left over":
        weights[name], weights[name := "layers.7." + name] = weight, weight.clone()
    elif fault == "misshapen":
        weights[name] = weight[:-1].clone()
    elif fault != "missing":
        weights[name] = weight.clone()
        weights[name].view(-1)[3] = math.nan if fault == "nan" else math.inf
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        LamModel.from_pretrained(tmp_path)


def test_weights_of_the_base_are_refused(tiny_base):
    with pytest.raises(ValueError, match="do not fit"):
        LamModel.from_pretrained(tiny_base, config=LamConfig(**read_config(tiny_base)))


MIXTURES = {
    "one long among short ones": [5 * BLOCK + 7, *[3] * 20],
    "every length": [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5, 2, 17, 150],
    "an empty mask": [0, 40, 0, 2 * BLOCK],
    "all alike": [BLOCK + 9] * 3,
    "nothing at all": [0, 0],
}


def mixture(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = token_ids(len(lengths), max(*lengths, 3))
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


@pytest.mark.parametrize("base_only", [False, True])
@pytest.mark.parametrize("name", MIXTURES)
@torch.no_grad()
def test_texts_of_any_lengths_are_read_as_each_is_alone(tiny_lam, name, base_only):
    """Hidden states of all layers, the states and the means."""
    tiny_lam.config.base_only = base_only
    for layer in tiny_lam.layers:
        layer.base_only = base_only
    ids, mask = mixture(MIXTURES[name])
    together = tiny_lam(ids, mask, output_hidden_states=True, output_state=True)
    means = tiny_lam.mean(ids, mask)
    assert torch.equal(together.last_hidden_state, tiny_lam(ids, mask).last_hidden_state)
    for i, length in enumerate(MIXTURES[name]):
        for states in together.hidden_states:
            assert states.shape[:2] == ids.shape
            assert states.isfinite().all()
        if not length:
            assert torch.equal(means[i], torch.zeros_like(means[i]))
            continue
        alone = tiny_lam(ids[i : i + 1, :length], output_hidden_states=True, output_state=True)
        for found, wanted in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(found[i, :length], wanted[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(means[i], alone.last_hidden_state[0].mean(0), rtol=0, atol=1e-5)
        if not base_only:
            torch.testing.assert_close(together.state[i], alone.state[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["one long among short ones", "every length"])
@pytest.mark.parametrize("read", ["forward", "mean"])
@torch.no_grad()
def test_a_text_that_has_ended_is_read_no_further(tiny_lam, monkeypatch, name, read):
    numbers = []
    monkeypatch.setattr(
        tiny_lam.embeddings, "forward", lambda ids, *more, f=tiny_lam.embeddings.forward: (
            numbers.append(ids.numel()), f(ids, *more)
        )[1],
    )  # fmt: skip
    getattr(tiny_lam, read)(*mixture(MIXTURES[name]))
    assert sum(numbers) <= 1.15 * sum(MIXTURES[name]) + 64 * len(numbers)
    assert sum(numbers) < 0.6 * len(MIXTURES[name]) * max(MIXTURES[name])


def test_gradients_of_a_mixture_are_those_of_its_texts(tiny_lam):
    ids, mask = mixture(MIXTURES["every length"])
    weights = [p for name, p in trained(tiny_lam).items() if name.endswith("in_proj.weight")]

    def gradients(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = tiny_lam(ids, mask, output_hidden_states=True)
        total = sum((x * mask[..., None]).square().sum() for x in output.hidden_states)
        return torch.autograd.grad(total / mask.numel(), weights)

    together = gradients(ids, mask)
    alone = [gradients(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(MIXTURES["every length"])]
    counts = [n / mask.numel() for n in MIXTURES["every length"]]
    for found, *parts in zip(together, *alone, strict=True):
        wanted = sum(part * count for part, count in zip(parts, counts, strict=True))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_the_configuration_says_what_is_returned_unless_the_call_does(tiny_lam):
    ids = token_ids(2, 9)
    assert tiny_lam(ids).hidden_states is None
    tiny_lam.config.output_hidden_states = True
    assert len(tiny_lam(ids).hidden_states) == tiny_lam.config.num_hidden_layers + 1
    assert tiny_lam(ids, output_hidden_states=False).hidden_states is None
    tiny_lam.config.return_dict = False
    last, hidden_states = tiny_lam(ids)
    assert torch.equal(last, hidden_states[-1])
    assert tiny_lam(ids, return_dict=True).last_hidden_state is not None


def test_arguments_are_those_of_bert(tiny_lam):
    ids, mask = token_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    expected = tiny_lam(ids, mask).last_hidden_state
    types = torch.ones_like(ids)
    assert torch.equal(tiny_lam(ids, mask, types).last_hidden_state, expected)
    assert tiny_lam(ids, mask, types).hidden_states is None
    words = tiny_lam.get_input_embeddings()(ids)
    torch.testing.assert_close(tiny_lam(inputs_embeds=words, attention_mask=mask).last_hidden_state, expected)
    long = token_ids(2, 2 * BLOCK + 5)
    torch.testing.assert_close(
        tiny_lam(inputs_embeds=tiny_lam.get_input_embeddings()(long)).last_hidden_state,
        tiny_lam(long).last_hidden_state,
    )
    for wrong in ({}, {"input_ids": ids, "inputs_embeds": words}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            tiny_lam(**wrong)
    with pytest.raises(TypeError, match="position_ids"):
        tiny_lam(ids, position_ids=ids)


SHAPES = ((2, 20), (1, 7), (3, BLOCK), (2, BLOCK + 1), (2, 2 * BLOCK), (4, 4 * BLOCK + 44))


def shorter_second(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return mixture([length, max(1, length // 2), *[length] * batch][:batch])


def as_eager(model: LamModel, read, batch: int, length: int) -> None:
    ids, mask = shorter_second(batch, length)
    with torch.no_grad():
        output = read(ids, mask)
        found = output[0] if isinstance(output, tuple) else output["last_hidden_state"]
        wanted = model(ids, mask).last_hidden_state
    torch.testing.assert_close(found * mask[..., None], wanted * mask[..., None], rtol=0, atol=2e-5)


@pytest.mark.parametrize("example", [(2, 20), (2, 2 * BLOCK + 22)])
def test_exports_with_a_length_that_is_left_open(tiny_lam, example):
    shape = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("length", min=2, max=100_000)}
    program = torch.export.export(
        tiny_lam, shorter_second(*example), dynamic_shapes={"input_ids": shape, "attention_mask": shape}
    )
    for batch, length in SHAPES:
        as_eager(tiny_lam, program.module(), batch, length)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("example", [(2, 20), (2, 2 * BLOCK + 22)])
def test_is_traced_for_every_length(tiny_lam, example):
    traced = torch.jit.trace(tiny_lam, shorter_second(*example), strict=False)
    for batch, length in SHAPES:
        as_eager(tiny_lam, traced, batch, length)


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_a_few_times_for_all_lengths(tiny_lam, compiler):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(compiler)
    compiled = torch.compile(tiny_lam, fullgraph=True, backend=counter)
    for length in (20, 33, 50, BLOCK, BLOCK + 1, 150, 2 * BLOCK, 300, 7 * BLOCK + 1):
        as_eager(tiny_lam, compiled, 2, length)
    assert counter.frame_count <= 3


@torch.no_grad()
def test_gradients_of_what_is_compiled_are_the_same(tiny_lam):
    torch._dynamo.reset()
    ids, mask = shorter_second(2, 2 * BLOCK + 22)
    found = []
    with torch.enable_grad():
        for read in (tiny_lam, torch.compile(tiny_lam, fullgraph=True, backend="aot_eager")):
            total = (read(ids, mask).last_hidden_state * mask[..., None]).square().sum()
            found.append(torch.autograd.grad(total, list(trained(tiny_lam).values())))
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4 * eager.abs().max().item())


def test_what_is_saved_has_its_code_with_it(tiny_lam, tmp_path):
    tiny_lam.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    ids = token_ids(2, 9)
    assert torch.equal(again.eval()(ids).last_hidden_state, tiny_lam(ids).last_hidden_state)
    code = "import sys; sys.modules['lam_model'] = None  # as where it is not installed\n"
    code += "from transformers import AutoModel\n"
    code += f"model = AutoModel.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)\n"
    code += "sys.exit('transformers_modules' not in type(model).__module__)"
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    # Without the package: not even where Python would find it.
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
