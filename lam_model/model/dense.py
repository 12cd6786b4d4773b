"""Dense layers that multiply bfloat16 as fast as the CPU can."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dense(nn.Linear):
    """`nn.Linear`; in inference in bfloat16 on a CPU, by oneDNN from the weight as it is.

    No copy of the weight is kept. An optimiser, `.data`, a numpy view or an adapter that is merged can change a weight
    without a trace, so a copy can never be known to be current. Of float32, oneDNN would keep a compiled product for
    each number of rows that comes by, 1.5 MB each.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._by_onednn(x):
            return super().forward(x)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def _by_onednn(self, x: Tensor) -> bool:
        return (
            x.dtype == self.weight.dtype == torch.bfloat16
            and x.device.type == self.weight.device.type == "cpu"
            and x.numel() > 0
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not torch.is_autocast_enabled(x.device.type)
            and torch.backends.mkldnn.is_available()
            and bool(torch.backends.mkldnn.enabled)
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
