"""The command `lam`. Each subcommand imports what it needs when it runs, so that `lam --help` is instant."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from . import __version__
from .commands import encode, evaluation, folders, index, training
from .commands.map import add_map
from .startup import after_import


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; those of the process if None.

    Returns:
        The exit code: 0, 2 for an error that a sentence on stderr explains, 3 if rows were skipped, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(prog="lam", description="all-MiniLM-L6-v2 that reads whole documents.")
    parser.add_argument("--version", action="version", version=f"lam {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        encode.add_encode,
        index.add_index,
        index.add_search,
        add_map,
        evaluation.add_compare,
        evaluation.add_eval,
        evaluation.add_mteb,
        folders.add_build,
        folders.add_verify,
        folders.add_export,
        folders.add_publish,
        training.add_train,
    ):
        add(subparsers)
    closed = _open_outputs()
    args = parser.parse_args(argv)
    try:
        if closed and not getattr(args, "output", None):
            raise ValueError("standard output is closed: open it, or send it to /dev/null")
        with nullcontext() if args.run is evaluation.run_mteb else _hushed():  # mteb's own command says what it likes
            code = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _give_up_stdout()
        return 141
    except Exception as error:
        # SafetensorError is no class of Python's, and may not be imported for `--help`'s sake.
        expected = isinstance(error, (ValueError, TypeError, OSError, ImportError))
        if not (expected or type(error).__name__ == "SafetensorError"):
            raise
        _name_stdout(error)
        sys.stderr.write(f"lam: error: {_sentence(error)}\n")
        return 2
    return code or 0


def _open_outputs() -> bool:
    """Make stdout and stderr accept every character, open them if they are closed, and say whether stdout was."""
    closed = sys.stdout is None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: no file that is opened later may take its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    return closed


@contextmanager
def _hushed() -> Iterator[None]:
    """Only LAM's own progress, warnings and errors go to stderr, not those of the libraries that it uses."""
    levels = {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "critical",
        "TORCH_LOGS": "-all",
        "LANCEDB_LOG": "error",
    }
    levels = {name: level for name, level in levels.items() if name not in os.environ}
    os.environ.update(levels)
    after_import("transformers.utils.logging", _hush_transformers)
    after_import("datasets.utils.tqdm", lambda module: module.disable_progress_bars())
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
                warnings.filterwarnings("default", module=__package__)
            yield
    finally:
        for name in levels:
            os.environ.pop(name, None)


def _hush_transformers(module: Any) -> None:
    from huggingface_hub.utils import enable_progress_bars

    module.disable_progress_bar()
    enable_progress_bars()  # of downloads, which the line before turns off too


def _give_up_stdout() -> None:
    """Nobody takes the output: at exit, Python would try to flush the rest of it."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _name_stdout(error: Exception) -> None:
    """If stdout cannot be written, as on a full disk, name it in the error."""
    try:
        sys.stdout.flush()
    except OSError as again:
        if isinstance(error, OSError) and error.errno == again.errno and error.filename is None:
            error.filename = "standard output"
        _give_up_stdout()


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
