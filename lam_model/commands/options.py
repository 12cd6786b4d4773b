"""Options and checks that several commands share, and the model that they ask for."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..index.documents import Document
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


def load_encoder(args: argparse.Namespace, soon: bool = False) -> Lam | OnnxEncoder:
    """The model to encode with: on ONNX Runtime if that was asked for, and where torch is not installed.

    Args:
        soon: there is little to encode: ONNX Runtime is chosen where nothing speaks against it, for torch takes seconds
            to be imported.
    """
    for_either = args.device in (None, "cpu") and args.dtype in (None, "float32", "int8")
    missing = not (find_spec("torch") and find_spec("sentence_transformers"))
    if not (args.backend == "onnx" or (args.backend is None and (missing or (soon and for_either)))):
        return load_model(args)
    if args.device not in (None, "cpu"):
        raise ValueError(f"device is {args.device!r}: ONNX Runtime runs LAM on the CPU, leave it out")
    from ..folder.hub import find
    from ..runtime.onnx_encoder import OnnxEncoder
    from ..runtime.onnx_source import graph_files

    dtype = args.dtype or "float32"
    graphs = graph_files(args.base_only, dtype == "int8")
    folder = find(args.model, args.revision, graphs) if args.model else None
    return OnnxEncoder(folder, dtype=dtype, base_only=args.base_only, dim=getattr(args, "dim", None))


def check_not_read(output: Path | None, paths: list[Path]) -> None:
    """Refuse an output that is among the files to be read, some of them in folders."""
    from ..index.documents import input_files

    if not output:
        return
    files = [file for path in paths for file in (input_files([path]) if path.is_dir() else [path])]
    if output.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"{output} is read and would be replaced: give --output another name")


def command_line() -> str:
    return shlex.join(["lam", *sys.argv[1:]])


def read_files(args: argparse.Namespace) -> Iterator[Document]:
    from ..index.documents import read

    if args.texts:
        raise ValueError(f"the text {args.texts[0]!r:.60} is given beside --file: give texts in a command of their own")
    return read(*args.file)
