"""LAM as ONNX graphs: *full*, and *base-only* with the DeltaNet layers skipped. Installed as `lam_export`."""

from .check import verify
from .folder import export

__all__ = ["export", "verify"]
