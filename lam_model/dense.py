"""Dense layers that multiply as fast as the CPU can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROWS = 128  # from so many on, oneDNN is worth its own layout of a float32 weight, made anew for each product


class Dense(nn.Linear):
    """`nn.Linear`; in inference on a CPU, by oneDNN from the weight as it is.

    No copy of the weight is kept. An optimiser, `.data`, a numpy view or an adapter that is merged can change a weight
    without a trace, so a copy can never be known to be current.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._by_onednn(x):
            return super().forward(x)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def _by_onednn(self, x: Tensor) -> bool:
        rows = x.numel() // self.in_features
        return (
            not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not torch.is_autocast_enabled(x.device.type)
            and x.device.type == self.weight.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
            and (rows >= _ROWS if x.dtype == torch.float32 else rows > 0 and _multiplies_bfloat16(x.dtype))
        )


def _multiplies_bfloat16(dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
