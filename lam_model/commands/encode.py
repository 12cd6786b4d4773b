"""`lam encode`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import (
    add_columns,
    add_dim,
    add_model_options,
    check_no_texts,
    check_not_read,
    columns_of,
    load_encoder,
    positive,
)

if TYPE_CHECKING:
    from ..corpus.documents import Document
    from ..corpus.skipped import SkippedRows
    from ..corpus.vectors import Chunk, Encoding
    from .options import Subparsers

_SKIPPED = 3  # the exit code where some rows were left out


def add_encode(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "encode",
        help="turn texts into vectors",
        description="Turn texts into vectors: those given, those of files, or one a line of stdin.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument(
        "-f",
        "--file",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help=".txt (one text a line), .jsonl or .parquet, or folders of .jsonl and .parquet files: paths, or URLs that "
        "fsspec opens; .txt and .jsonl may end in .gz or .zst",
    )
    parser.add_argument(
        "--stream", type=Path, metavar="FILE", help="UTF-8 of any size that is one text, read in flat memory"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help=".npy, .jsonl, .parquet or .lance; or a folder, for parquet files: started again, it goes on where it "
        "was stopped (default: jsonl to stdout)",
    )
    parser.add_argument(
        "--passages",
        action="store_true",
        help="a vector for each passage of a sentence or two, with its number and its characters in title and text",
    )
    parser.add_argument("--with-text", action="store_true", help="write beside each vector the text that it is of")
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="at a bad row; those skipped are listed beside the output, and the exit code is 3 (default: stop)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes on ONNX Runtime that share the cores (default: one a core if the output is a folder)",
    )
    parser.add_argument(
        "--engine",
        choices=["processes", "ray"],
        default="processes",
        help="what runs the workers of a folder; ray: actors of Ray Data (default: processes)",
    )
    parser.add_argument("--address", help="of a Ray cluster (default: one that is started here)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="with torch; default: 32")
    add_columns(parser)
    add_dim(parser)
    add_model_options(parser)
    parser.set_defaults(run=_encode)


def _encode(args: argparse.Namespace) -> int:
    from ..corpus.outputs import check_output, write_chunks
    from ..corpus.shards import check_folder
    from ..corpus.skipped import SkippedRows
    from ..corpus.vectors import encode_stream

    # Whatever can be refused is refused before the model is loaded.
    to_folder = args.output is not None and not args.output.suffix
    _check(args, to_folder)
    if to_folder:
        check_folder(args.output)
    elif args.output:
        check_output(args.output, bool(args.passages or args.with_text or args.keep))
    if args.stream:
        with open(args.stream, "rb") as file:
            write_chunks(encode_stream(load_encoder(args), file), args.output)
        return 0
    listed = _listed(args)
    if to_folder:
        _to_folder(args)
    else:
        with SkippedRows(listed) if listed else nullcontext() as skipped:
            documents = _documents(args, skipped)
            write_chunks(_chunks(args, _encoding(args, args.workers or 0), documents), args.output)
    if not (listed and listed.exists()):
        return 0
    with open(listed, "rb") as rows:
        sys.stderr.write(f"lam: {sum(1 for _ in rows)} rows were skipped, see {listed}\n")
    return _SKIPPED


def _check(args: argparse.Namespace, to_folder: bool) -> None:
    from ..corpus.outputs import OWN

    if args.stream and (args.texts or args.file or args.passages):
        what = "--passages" if args.passages else "other texts"
        raise ValueError(f"--stream reads {args.stream} alone, into one vector: give {what} in a command of their own")
    if args.file:
        check_no_texts(args)
    elif args.text or args.title or args.id or args.keep or args.on_error == "skip":
        raise ValueError("columns, and rows to be skipped, are those of files: give --file")
    if own := [name for name in args.keep if name in OWN]:
        raise ValueError(f"--keep {own[0]}: rows have a column of that name (--with-text adds the text)")
    if args.on_error == "skip" and not args.output:
        raise ValueError("--on-error skip lists what it skips beside the output: give --output")
    if to_folder and not args.file:
        raise ValueError(f"{args.output} would be a folder, which is written from files: give --file, or name a file")
    if (args.engine == "ray" or args.address) and not to_folder:
        raise ValueError("--engine ray writes a folder: give --output a name without a suffix")
    if args.address and args.engine != "ray":
        raise ValueError("--address is that of a Ray cluster: give --engine ray too")
    check_not_read(args.output, [*args.file, *filter(None, [args.stream])])


def _listed(args: argparse.Namespace) -> Path | None:
    """The file in which skipped rows are listed, if they are to be skipped."""
    from ..corpus.shards import SKIPPED

    if args.on_error == "stop":
        return None
    return args.output.with_name(f"{args.output.name}.skipped.jsonl") if args.output.suffix else args.output / SKIPPED


def _documents(args: argparse.Namespace, skipped: SkippedRows | None) -> Iterator[Document]:
    from ..corpus.documents import Document, read, read_stdin

    if args.file:
        return read(*args.file, columns=columns_of(args), skipped=skipped)
    if args.texts:
        return map(Document, args.texts)
    documents = read_stdin()
    if sys.stdin.isatty():
        sys.stderr.write("lam: reading texts from the terminal, one a line, up to Ctrl-D\n")
    return documents


def _to_folder(args: argparse.Namespace) -> None:
    from ..corpus.shards import Shards, ShardWriter, finish
    from ..corpus.workers import cores, in_order

    torch = args.backend == "torch" or args.device is not None
    on_cluster = args.engine == "ray"
    workers = args.workers or (0 if torch and not on_cluster else cores())
    # An actor has a core of its own; torch is in as many actors as there are GPUs.
    sharing = cores() if on_cluster and not torch else workers
    writer = ShardWriter(_encoding(args, 0 if on_cluster and torch else sharing))
    shards = Shards(args.output, args.file, columns_of(args), args.on_error == "skip", writer.encoding.key)
    if on_cluster:
        from ..corpus.on_ray import on_ray

        found = on_ray(writer, shards, workers, args.address, gpus=float(str(args.device).startswith("cuda")))
    else:
        found = in_order(writer, shards, workers)
    count = 0
    with _progress(args) as bar:
        for there in found:
            count += there.texts
            if not there.before:
                bar.update(there.texts)
            elif bar.total:
                bar.total -= there.texts
    finish(args.output, count)


def _chunks(args: argparse.Namespace, encoding: Encoding, documents: Iterable[Document]) -> Iterator[Chunk]:
    from ..corpus.vectors import in_texts

    texts = in_texts(documents, args.keep)
    if args.workers:
        from ..corpus.workers import in_order

        chunks = in_order(encoding, texts, args.workers)
    else:
        chunks = map(encoding, texts)
    with _progress(args) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(chunk.texts)


def _encoding(args: argparse.Namespace, workers: int) -> Encoding:
    from ..corpus.vectors import Encoding

    model = load_encoder(args, soon=bool(args.texts), workers=workers)
    options = {} if hasattr(model, "read") else {"batch_size": args.batch_size, "show_progress_bar": False}
    return Encoding(model, args.passages, args.with_text, options)


def _progress(args: argparse.Namespace) -> Any:
    from ..corpus.inputs import input_files
    from ..progress import progress

    counts = [file.rows() for file in input_files(args.file)]
    known = [count for count in counts if count is not None]
    return progress(total=sum(known) if known and len(known) == len(counts) else None, unit=" texts")
