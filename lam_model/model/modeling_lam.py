"""LAM: a BERT sentence encoder whose softmax attention is replaced by gated DeltaNet layers.

Embeddings, feed-forward layers and LayerNorms are the base's own, frozen; each attention is a `GatedDeltaNet`,
trained. A text is read in blocks of `block_size` tokens. Left to right, a block starts from what the text's beginning
left and what the block before it left (`directions.py`); right to left it starts anew. So time grows linearly with the
length of the text, memory stays flat, and a text read in several calls has the vector of the text read in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from .batching import CPU, GPU, alike
from .configuration_lam import LamConfig
from .delta_rule import fuses, is_traced
from .dense import Dense
from .directions import State, both_directions

if TYPE_CHECKING:  # of a local folder's code, transformers 4 copies only the files that this one names
    from .delta_rule_cpu import delta_rule as _  # noqa: F401

CARRY = (0.7, 0.5)  # of the states of the beginning and of the block before, what a block starts from, untrained
_PIECE = 16_384  # numbers: torch starts its threads for more


@dataclass
class LamOutput(ModelOutput):
    """What `LamModel` returns.

    Args:
        last_hidden_state: (batch, length, hidden size); zeros at the pads that were not read.
        state: what has been read so far, (batch, layers, 2, heads, head size, head size), float32; of `forward` with
            `output_state`.
        hidden_states: with `output_hidden_states`, the embeddings and each layer's output.
    """

    last_hidden_state: Tensor | None = None
    state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class GatedDeltaNet(nn.Module):
    """Token mixing by the gated delta rule in both directions, in place of softmax attention.

    Yang, Kautz, Hatamizadeh, "Gated Delta Networks" (2024), with the queries, keys and values of the base's
    attention to start from, and one learned scale a head in place of an output norm.
    """

    def __init__(self, config: LamConfig):
        super().__init__()
        size, heads = config.hidden_size, config.num_attention_heads
        self.heads = heads
        # query, key, value, then write strength (beta) and decay for each head and direction
        self.in_proj = Dense(size, 3 * size + 4 * heads)
        self.scale = nn.Parameter(torch.ones(heads))
        self.carry = nn.Parameter(torch.empty(2, heads))  # of the beginning's state, and of the one before
        self.out_proj = Dense(size, size)

    def forward(
        self, x: Tensor, mask: Tensor, state: State | None, breaks: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """x (batch, length, size), mask and breaks (batch, length); see `both_directions`."""
        projected = self.in_proj(x)
        if fuses(projected):
            from .delta_net_cpu import fused_delta_net  # imports numba

            mixed, state = fused_delta_net(projected, mask, self.scale, state, self.carry, breaks)
        else:
            mixed, state = self._mix(projected, mask, state, breaks)
        return self.out_proj(mixed.to(x.dtype)), state

    def _mix(self, projected: Tensor, mask: Tensor, state: State | None, breaks: Tensor | None) -> tuple[Tensor, State]:
        """From one projection to the other. Arguments and results are those of `delta_net_cpu.fused_delta_net`."""
        heads = self.heads
        size = (projected.shape[-1] - 4 * heads) // 3
        # The delta rule runs in float32 at least, whatever the dense layers run in.
        projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
        query_key, value, gates = projected.split([2 * size, size, 4 * heads], dim=-1)
        query_key = F.silu(query_key).unflatten(-1, (2 * heads, -1))
        # `F.normalize`, which in an ONNX graph would copy each norm to all of its vector's numbers first
        query_key = query_key / query_key.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        # Split and added up with heads side by side: these views are free, and cancel out in an ONNX graph.
        query, key, value = (x.unflatten(-1, (heads, -1)) for x in (*query_key.flatten(-2).chunk(2, dim=-1), value))
        # A pad writes nothing and forgets nothing. Both functions of all gates: one node of an ONNX graph.
        infinite = projected.new_full((2 * heads,), torch.inf)
        gates = gates + torch.where(mask[..., None] > 0, 0.0, torch.cat([-infinite, infinite]))
        b_right, b_left, _, _ = gates.sigmoid().chunk(4, dim=-1)
        _, _, g_right, g_left = F.logsigmoid(gates).chunk(4, dim=-1)
        mixed, state = both_directions(
            query, key, value, (b_right, b_left), (g_right, g_left), mask, state, self.carry, breaks
        )
        return mixed.flatten(-2) * self.scale[:, None].expand(heads, size // heads).flatten(), state


class LamEmbeddings(nn.Module):
    """BERT's embeddings of words and of positions, which are counted anew in each block."""

    def __init__(self, config: LamConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.block_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """tokens: ids (batch, length), or the vectors of words in their place (batch, length, size)."""
        words = tokens if tokens.is_floating_point() else self.word_embeddings(tokens)
        x = words + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x + self.position_embeddings(position))


class LamLayer(nn.Module):
    """BERT's layer, with the DeltaNet in the place of self-attention."""

    def __init__(self, config: LamConfig):
        super().__init__()
        self.delta_net = GatedDeltaNet(config)
        self.delta_net_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up = Dense(config.hidden_size, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.down = Dense(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.base_only = config.base_only

    def forward(
        self, x: Tensor, mask: Tensor, state: State | None, breaks: Tensor | None
    ) -> tuple[Tensor, State | None]:
        if self.base_only:
            x = self.delta_net_norm(x)
        else:
            mixed, state = self.delta_net(x, mask, state, breaks)
            x = self.delta_net_norm(x + mixed)
        return self.norm(x + self.down(self.act(self.up(x)))), state


class LamModel(PreTrainedModel):
    """The encoder. Wrap it in sentence-transformers' mean pooling and normalisation for embeddings."""

    config_class = LamConfig
    base_model_prefix = "lam"
    main_input_name = "input_ids"
    _no_split_modules = ("LamLayer",)

    def __init__(self, config: LamConfig):
        super().__init__(config)
        self.embeddings = LamEmbeddings(config)
        self.layers = nn.ModuleList(LamLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, but weights that are missing, left over, misshapen or not finite are refused.

        Raises:
            ValueError: naming the tensors.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["ignore_mismatched_sizes"] = True  # they are named below, with all that is wrong
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        wrong = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
        if bad := [name for name, tensor in model.state_dict().items() if not is_finite(tensor)]:
            wrong["non_finite"] = bad
        if wrong:
            raise ValueError(f"the weights of {args[0] if args else 'this model'} do not fit a LAM: {wrong}")
        return (model, info) if wants_info else model

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        if isinstance(module, GatedDeltaNet):
            nn.init.ones_(module.scale)
            for factors, start in zip(module.carry, CARRY, strict=True):
                nn.init.constant_(factors, start)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def forward_block(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        state: Tensor | None = None,
        first_block: bool | Tensor = True,
        breaks: Tensor | None = None,
    ) -> LamOutput:
        """Read one block.

        Args:
            input_ids, attention_mask: (batch, length), at most `block_size` tokens, padded on the right.
            state: as returned for the block before; None where nothing has been read.
            first_block: whether the block, or each of its parts, begins with position 0, as a text's first token has;
                a tensor (batch,) where texts differ.
            breaks: (batch, length), true at the first token of each part but the first; parts are read as if each were
                a block.
        """
        states: Sequence[State | None] = [None] * len(self.layers)
        if state is not None:
            states = [State(*of_layer.unbind(1)) for of_layer in state.unbind(1)]
        (last,), states = self._read(input_ids, attention_mask, states, first_block, breaks)
        return LamOutput(last, self._stack(states))

    def mean(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean over each text's tokens of their last hidden states, with those of one block in memory at a time.

        Args:
            input_ids, attention_mask: as for `forward`.

        Returns:
            (batch, hidden size).
        """
        like = self.embeddings.LayerNorm.weight
        total = like.new_zeros(len(input_ids), self.config.hidden_size, dtype=torch.float32)
        for rows, block, (last,), _ in self._read_blocks(input_ids, attention_mask):
            total[rows] += (last.float() * attention_mask[rows, block, None]).sum(1)
        return (total / attention_mask.sum(1, keepdim=True).clamp(min=1)).to(like.dtype)

    def _read_blocks(
        self, tokens: Tensor, attention_mask: Tensor, all_layers: bool = False
    ) -> Iterator[tuple[Tensor, slice, tuple[Tensor, ...], Sequence[State | None]]]:
        """Read texts of any length, a block at a time of those that are alike; one that has ended is read no further.

        Yields:
            Which texts, which of their tokens, the hidden states of these, and each layer's state after them.
        """
        size = self.config.block_size
        limits = CPU if attention_mask.device.type == "cpu" else GPU
        ends = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device) * (attention_mask > 0)
        counts, order = F.pad(ends, (1, 0)).amax(1).sort(descending=True, stable=True)
        lengths: list[int] = counts.tolist()
        states: list[State | None] = [None] * len(self.layers)
        for start in range(0, max(lengths, default=0), size):
            left = [min(length - start, size) for length in lengths if length > start]
            after = []
            for group in alike(left, **limits):
                rows, block = order[group], slice(start, start + left[group.start])
                before = [state and State(*(x[group] for x in state)) for state in states]
                some, mask = tokens[rows, block], attention_mask[rows, block]
                hidden_states, last_states = self._read(some, mask, before, start == 0, all_layers=all_layers)
                after.append(last_states)
                yield rows, block, hidden_states, last_states
            states = [
                None if parts[0] is None else State(*map(torch.cat, zip(*parts, strict=True)))
                for parts in zip(*after, strict=True)
            ]

    def _read(
        self,
        tokens: Tensor,
        attention_mask: Tensor,
        states: Sequence[State | None],
        first_block: bool | Tensor,
        breaks: Tensor | None = None,
        all_layers: bool = False,
    ) -> tuple[tuple[Tensor, ...], tuple[State | None, ...]]:
        """The hidden states of a block, the last layer's or all, and each layer's state after it."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        if breaks is not None:
            position = position - torch.where(breaks, position, 0).cummax(dim=-1).values
            position = position.clamp(max=self.config.block_size - 1)  # of the pads beside a longer text in parts
        if isinstance(first_block, Tensor):
            position = torch.maximum(position, 1 - first_block[:, None].to(position.dtype))
        elif not first_block:
            position = position.clamp(min=1)
        return self._mix(self.embeddings(tokens, position), attention_mask, states, breaks, all_layers)

    def _mix(
        self,
        x: Tensor,
        attention_mask: Tensor,
        states: Sequence[State | None],
        breaks: Tensor | None,
        all_layers: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[State | None, ...]]:
        hidden_states, last_states = [x] * all_layers, []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(x, attention_mask, state, breaks)
            hidden_states += [x] * all_layers
            last_states.append(state)
        return tuple(hidden_states) or (x,), tuple(last_states)

    def _read_at_once(
        self, tokens: Tensor, attention_mask: Tensor, all_layers: bool
    ) -> tuple[tuple[Tensor, ...], tuple[State | None, ...]]:
        """As `_read_blocks`, without a loop: for a compiler that looks on, which would make a copy of each turn."""
        size, token = self.config.block_size, torch.arange(tokens.shape[1], device=tokens.device)
        position = torch.where(token < size, token, (token % size).clamp(min=1))
        breaks = ((token % size == 0) & (token > 0))[None] & (attention_mask > 0)
        return self._mix(
            self.embeddings(tokens, position), attention_mask, [None] * len(self.layers), breaks, all_layers
        )

    def _stack(self, states: Sequence[State | None]) -> Tensor | None:
        if self.config.base_only:
            return None
        return torch.stack([torch.stack(state, dim=1) for state in states if state is not None], dim=1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_state: bool = False,
    ) -> LamOutput | tuple[Tensor, ...]:
        """Read texts of any length, block by block.

        Args:
            input_ids: (batch, length), padded on the right.
            attention_mask: (batch, length), 1 for tokens and 0 for pads; all ones if None.
            token_type_ids: (batch, length), without effect: a LAM reads one text, of one type.
            inputs_embeds: (batch, length, hidden size), the vectors of words instead of `input_ids`.
            output_hidden_states: return the hidden states of the embeddings and of every layer; as the configuration
                says if None.
            return_dict: a `LamOutput` instead of a tuple; as the configuration says if None.
            output_state: return what has been read.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` were given.
        """
        given = [tokens for tokens in (input_ids, inputs_embeds) if tokens is not None]
        if len(given) != 1:
            raise ValueError("give either input_ids or inputs_embeds")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict
        (tokens,) = given
        if attention_mask is None:
            attention_mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        hidden_states: Sequence[Tensor]
        states: Sequence[State | None]
        if is_traced():
            hidden_states, states = self._read_at_once(tokens, attention_mask, output_hidden_states)
        else:
            hidden_states, states = self._read_and_gather(tokens, attention_mask, output_hidden_states, output_state)
        output = LamOutput(
            last_hidden_state=hidden_states[-1],
            state=self._stack(states) if output_state else None,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
        )
        return output if return_dict else output.to_tuple()

    def _read_and_gather(
        self, tokens: Tensor, attention_mask: Tensor, all_layers: bool, with_states: bool
    ) -> tuple[list[Tensor], list[State]]:
        """The hidden states of the last layer or of all, and each layer's state if wanted, in the texts' order."""
        config, like = self.config, self.embeddings.LayerNorm.weight
        batch, length = attention_mask.shape
        heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        hidden_states: list[Tensor] = []
        shape = (2, batch, heads, width, width)
        states = [State(*like.new_zeros(shape, dtype=torch.float32)) for _ in self.layers if with_states]
        for rows, block, read, last_states in self._read_blocks(tokens, attention_mask, all_layers):
            hidden_states = hidden_states or [x.new_zeros(batch, length, config.hidden_size) for x in read]
            for whole, part in zip(hidden_states, read, strict=True):
                whole[rows, block] = part
            for kept, state in zip(states, last_states, strict=False):
                for whole, part in zip(kept, state or (), strict=False):
                    whole[rows] = part
        nothing = like.new_zeros(batch, length, config.hidden_size)
        return hidden_states or [nothing] * (len(self.layers) + 1 if all_layers else 1), states


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are; in pieces for which torch starts no threads, which a later fork would miss."""
    return all(piece.isfinite().all() for piece in tensor.reshape(-1).split(_PIECE))


# What `save_pretrained` writes says where its code is, and has the code beside it.
LamConfig.register_for_auto_class()
LamModel.register_for_auto_class("AutoModel")
