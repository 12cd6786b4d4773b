"""Options and checks that several commands share, and the model that they ask for."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..corpus.documents import Columns, Document
    from ..runtime.loading import Lam
    from ..runtime.onnx_encoder import OnnxEncoder

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive number")
    return int(value)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("model")
    options.add_argument("--model", metavar="PATH_OR_REPO", help="a model folder or a name on the Hub")
    options.add_argument("--revision", help="of the model on the Hub: a branch, a tag or a commit")
    options.add_argument("--device", help="cpu, cuda, mps, ... (default: the fastest that is available)")
    options.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16", "int8"], help="of the weights; int8 with --backend onnx"
    )
    options.add_argument(
        "--backend",
        choices=["torch", "onnx"],
        help="onnx: ONNX Runtime (default: torch; onnx where torch is not installed, and for TEXTs of `encode`)",
    )
    options.add_argument(
        "--base-only", action="store_true", help="without the DeltaNet layers: faster, and much less accurate"
    )


def add_dim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dim", type=positive, metavar="N", help="size of the vectors: 384, 256, 128 or 64")


def add_columns(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("columns", "of .jsonl and .parquet files")
    options.add_argument("--text", metavar="COLUMN", help="default: text")
    options.add_argument("--title", metavar="COLUMN", help="is read in front of the text (default: title, if there)")
    options.add_argument("--id", metavar="COLUMN", help="default: _id or id, if there, else the number of the text")
    options.add_argument("--keep", nargs="+", default=[], metavar="COLUMN", help="passed on as they are")


def columns_of(args: argparse.Namespace) -> Columns:
    from ..corpus.documents import USUAL

    given = {"text": args.text, "title": args.title, "id": args.id and (args.id,), "keep": tuple(args.keep)}
    return USUAL._replace(**{name: value for name, value in given.items() if value})


def load_model(args: argparse.Namespace) -> Lam:
    import lam_model

    try:
        return lam_model.load(
            args.model,
            revision=args.revision,
            device=args.device,
            dtype=args.dtype,
            base_only=args.base_only,
            backend=args.backend or "torch",
            dim=getattr(args, "dim", None),
        )
    except (RuntimeError, AssertionError) as error:  # torch's, of a device that it does not have
        if not args.device:
            raise
        raise ValueError(f"the device {args.device} cannot be used: {str(error).splitlines()[0]}") from error


def load_encoder(args: argparse.Namespace, soon: bool = False, workers: int = 0) -> Lam | OnnxEncoder:
    """The model to encode with: on ONNX Runtime if that was asked for, and where torch is not installed.

    Args:
        soon: there is little to encode: ONNX Runtime is chosen where nothing speaks against it, for torch takes seconds
            to be imported.
        workers: processes that share the cores; they run ONNX Runtime.
    """
    for_either = args.device in (None, "cpu") and args.dtype in (None, "float32", "int8")
    missing = not (find_spec("torch") and find_spec("sentence_transformers"))
    if workers and args.backend == "torch":
        raise ValueError("workers run ONNX Runtime: leave --backend torch out")
    if not (workers or args.backend == "onnx" or (args.backend is None and (missing or (soon and for_either)))):
        return load_model(args)
    if args.device not in (None, "cpu"):
        raise ValueError(f"device is {args.device!r}: ONNX Runtime runs LAM on the CPU, leave it out")
    from ..corpus.workers import cores
    from ..folder.hub import find
    from ..runtime.onnx_encoder import OnnxEncoder
    from ..runtime.onnx_source import graph_files

    dtype = args.dtype or "float32"
    graphs = graph_files(args.base_only, dtype == "int8")
    folder = find(args.model, args.revision, graphs) if args.model else None
    threads = max(1, cores() // workers) if workers else None
    return OnnxEncoder(folder, threads=threads, dtype=dtype, base_only=args.base_only, dim=getattr(args, "dim", None))


def check_not_read(output: Path | None, paths: Iterable[Path | str]) -> None:
    """Refuse an output that is among the files to be read, some of them in folders."""
    from ..corpus.inputs import input_files, is_url

    if not output:
        return
    names: list[str] = []
    for path in paths:
        names += [file.name for file in input_files([path])] if Path(path).is_dir() else [str(path)]
    if output.resolve() in [Path(name).resolve() for name in names if not is_url(name)]:
        raise ValueError(f"{output} is read and would be replaced: give --output another name")


def command_line() -> str:
    return shlex.join(["lam", *sys.argv[1:]])


def read_files(args: argparse.Namespace) -> Iterator[Document]:
    from ..corpus.documents import read

    check_no_texts(args)
    return read(*args.file)


def check_no_texts(args: argparse.Namespace) -> None:
    if args.texts:
        raise ValueError(f"the text {args.texts[0]!r:.60} is given beside --file: give texts in a command of their own")
