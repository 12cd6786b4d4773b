"""Model folders of weights files, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..folder import build as building
from ..folder.base import sha256
from ..folder.build import CODE, CODE_FOLDER, PACKAGED_WEIGHTS, build
from ..folder.manifest import check
from .embed import embed


def cached(weights: Path = PACKAGED_WEIGHTS) -> tuple[Path, dict[str, Any]]:
    """The model folder of some weights, built once and again if it is damaged; and its manifest.

    Raises:
        FileNotFoundError, ValueError, OSError: as `build`.
    """
    from huggingface_hub import constants

    made_of = [weights, *(CODE_FOLDER / name for name in CODE), Path(building.__file__)]
    key = hashlib.sha256("".join(map(sha256, made_of)).encode()).hexdigest()[:16]
    path = Path(constants.HF_HOME) / "lam" / key
    try:
        return path, check(path)
    except (FileNotFoundError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent.with_suffix(".lock")):
        try:
            return path, check(path)  # another thread or process has built it meanwhile
        except (FileNotFoundError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(FileExistsError):  # of one that knows no lock, as an older LAM
            build(path, embed, weights)
        return path, check(path)
