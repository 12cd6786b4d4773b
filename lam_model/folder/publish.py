"""`publish`: a verified model folder with its card, sent to the Hub as one commit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from .. import __version__
from ..files import read_text
from .manifest import MANIFEST, ONNX, Embed, check_files, verify

CARD = "README.md"
GIT_FILE = ".gitattributes"  # the Hub puts one into every repository
_NOT_SENT = (".git/", ".cache/huggingface/")  # what git and the Hub's own command keep in a folder for themselves
# HTTPError is the HTTP library's, for a connection that broke; RuntimeError comes from the upload of large files.
_HUB_ERRORS = (HTTPError, OSError, ValueError, RuntimeError)


def publish(
    repo: str,
    folder: Path,
    embed: Embed,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
    announce: Callable[[dict[str, int]], None] | None = None,
) -> str | None:
    """Verify a model folder and send it to the Hub as one commit: nobody ever loads a part of it.

    ONNX files of an earlier commit that the folder does not have are removed: they are of other weights.

    Args:
        repo: owner/name on the Hub, made if it is not there.
        folder: as `build` wrote it, with its card as README.md and perhaps ONNX files.
        embed: computes the folder's vectors, to be compared with its golden ones.
        private: only those whom the owner lets in can see it.
        revision: a branch to commit to, made from main if it is not there; main if None.
        dry_run: stop before anything is sent.
        announce: called with the names and sizes in bytes of what is to be sent, before anything is.

    Returns:
        The address of the commit; None after a dry run.

    Raises:
        FileNotFoundError, ValueError: naming the file or the argument that is not fit to be published.
        OSError: the Hub did not take it; the message says why.
    """
    if repo.count("/") != 1:
        raise ValueError(f"{repo} is not a name on the Hub: give it as owner/name")
    validate_repo_id(repo)
    sizes = contents(folder, embed)
    if announce:
        announce(sizes)
    if dry_run:
        return None
    try:
        return _send(HfApi(token=True), repo, folder, list(sizes), private, revision)
    except _HUB_ERRORS as error:
        raise OSError(f"{repo} was not published: {_reason(error)}") from error


def contents(folder: Path, embed: Embed) -> dict[str, int]:
    """Verify a model folder and its card, and give the names and sizes in bytes of what is published of it.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    verify(folder, embed)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    check_files(folder, [name for name in manifest["sha256"] if name.startswith(ONNX)])
    _check_card(folder / CARD, manifest["deltanet_sha256"])
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith(_NOT_SENT)]
    if strays := [name for name in names if name not in {*manifest["sha256"], MANIFEST, CARD, GIT_FILE}]:
        raise ValueError(f"{folder / strays[0]} is not a file of the model: move it out of the folder")
    return {name: (folder / name).stat().st_size for name in names}


def _check_card(card: Path, deltanet_sha256: str) -> None:
    mend = f"write the card again for these weights and copy it into the folder as {CARD}"
    if not card.is_file():
        raise FileNotFoundError(f"{card} is missing: {mend}")
    weights = re.findall(r"<!-- deltanet_sha256: (\w+) -->", read_text(card))
    if weights != [deltanet_sha256]:
        raise ValueError(f"{card} is the card of other weights than the folder's: {mend}")


def _send(api: HfApi, repo: str, folder: Path, names: list[str], private: bool, revision: str | None) -> str:
    api.create_repo(repo, private=private or None, exist_ok=True)  # None: as the owner has set it for new ones
    if private and not api.model_info(repo).private:
        raise ValueError("it is there already, and public: make it private on the Hub, or leave --private out")
    with _branch(api, repo, revision):
        gone = [name for name in api.list_repo_files(repo, revision=revision) if name not in names]
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [CommitOperationDelete(name) for name in gone if name.startswith(ONNX)]
        operations += [CommitOperationAdd(name, folder / name) for name in names]
        # Not `upload_folder`, which may make several commits of a folder.
        message = f"Publish a verified LAM (lam-model {__version__})"
        return api.create_commit(repo, operations, commit_message=message, revision=revision).commit_url


@contextmanager
def _branch(api: HfApi, repo: str, name: str | None) -> Iterator[None]:
    """Make the branch to commit to, if it is not there; it is removed again if the commit fails."""
    made = None
    if name is not None and name not in [branch.name for branch in api.list_repo_refs(repo).branches]:
        api.create_branch(repo, branch=name)
        made = name
    try:
        yield
    except BaseException as error:
        if made is not None:
            try:
                api.delete_branch(repo, branch=made)
            except _HUB_ERRORS:
                left = f"the new branch {name} still holds what main holds: publish again, or remove it on the Hub"
                raise OSError(f"{_reason(error)}; {left}") from error
        raise


def _reason(error: BaseException) -> str:
    """Why the Hub did not take it, in a sentence."""
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token for the Hub: run `hf auth login`, or set HF_TOKEN"
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or said
        if error.response.status_code in (401, 403):
            return f"the Hub refuses it ({said}): use a token that may write there"
    elif isinstance(error, HTTPError):
        return f"the connection to the Hub broke ({said}): publish again"
    return said
