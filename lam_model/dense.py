"""Dense layers whose weights lie as the CPU's matrix products want them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Dense(nn.Linear):
    """`nn.Linear`; in inference on a CPU, from a copy of the weight in oneDNN's own layout.

    torch lays a weight out anew for each product, or does without: few rows then take up to half as long again. The
    copy is made by the first product, and again after the weight has changed.
    """

    _packed: tuple[tuple[int, int], Tensor] | None = None  # which weight the copy is of, and the copy

    def forward(self, x: Tensor) -> Tensor:
        if not self._takes(x):
            return super().forward(x)
        version = (self.weight.data_ptr(), self.weight._version)
        if self._packed is None or self._packed[0] != version:
            self._packed = version, torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
        return torch.ops.mkldnn._linear_pointwise(x, self._packed[1], self.bias, "none", [], "")

    def _takes(self, x: Tensor) -> bool:
        weight = self.weight
        return (
            not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled(x.device.type)
            and x.device.type == weight.device.type == "cpu"
            and x.dtype == weight.dtype
            and x.numel() > 0
            and not weight.is_inference()  # has no version
            and _multiplies(x.dtype)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # the layout is this process's own


def _multiplies(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
