"""A model folder, found: on the disk, or fetched from the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HTTPError

from .manifest import MANIFEST, ONNX, read_json


def find(path_or_repo: str | Path, revision: str | None = None, graphs: Sequence[str] = ()) -> Path:
    """The folder of a model.

    Args:
        path_or_repo: a folder, or a name on the Hub (owner/name).
        revision: branch, tag or commit on the Hub.
        graphs: of these, the first that a model on the Hub has is fetched too; no other graph is.

    Raises:
        FileNotFoundError: it is neither, or cannot be fetched.
        ValueError: a revision was given with a folder.
    """
    name = str(path_or_repo)
    if Path(name).is_dir():
        if revision:
            raise ValueError(f"revision {revision!r} was given with the local folder {name}: leave it out")
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name} is neither a folder nor a name on the Hub (owner/name)")
    try:
        path = Path(snapshot_download(name, revision=revision, ignore_patterns=[f"{ONNX}*"]))
        listed = read_json(path / MANIFEST)["sha256"] if graphs else {}
        for graph in [graph for graph in graphs if graph in listed][:1]:
            hf_hub_download(name, graph, revision=path.name)
        return path
    except (OSError, ValueError, HTTPError) as error:  # the hub's errors of every kind, a broken connection too
        at = f" at revision {revision}" if revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(f"{name}{at} is no folder, and cannot be fetched from the Hub: {reason}") from error
