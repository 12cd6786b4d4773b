"""LAM as ONNX graphs: *full*, and *base-only* with the DeltaNet layers skipped. Installed as `lam_export`."""

from .check import verify
from .folder import export
from .packaged import write_packaged

__all__ = ["export", "verify", "write_packaged"]
