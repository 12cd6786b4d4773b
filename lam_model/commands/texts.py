"""`lam encode` and `lam search`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_dim, add_model_options, check_not_read, load_encoder, positive, read_files

if TYPE_CHECKING:
    from .options import Subparsers

_PASSAGE_LINES = 7  # of a passage that was found, and the sentences around it


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
        type=Path,
        default=[],
        metavar="FILE",
        help=".txt (one text a line), .jsonl or .parquet (`text`, perhaps `title` and `_id`), or folders of .jsonl and "
        ".parquet files",
    )
    parser.add_argument(
        "--stream", type=Path, metavar="FILE", help="UTF-8 of any size that is one text, read in flat memory"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".npy, .jsonl or .parquet (default: jsonl to stdout)"
    )
    parser.add_argument(
        "--passages",
        action="store_true",
        help="a vector for each passage of a sentence or two, with its number and its characters in title and text",
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="with torch; default: 32")
    add_dim(parser)
    add_model_options(parser)
    parser.set_defaults(run=_encode)


def _encode(args: argparse.Namespace) -> None:
    from ..index.documents import Document, read_stdin
    from ..index.vectors import check_output, encode_chunks, encode_passages, encode_stream, write_chunks

    # Whatever can be refused is refused before the model is loaded.
    if args.stream and (args.texts or args.file or args.passages):
        what = "--passages" if args.passages else "other texts"
        raise ValueError(f"--stream reads {args.stream} alone, into one vector: give {what} in a command of their own")
    documents = read_files(args) if args.file else map(Document, args.texts)
    if args.output:
        check_output(args.output, args.passages)
    check_not_read(args.output, [*args.file, *filter(None, [args.stream])])
    if args.stream:
        with open(args.stream, "rb") as file:
            write_chunks(encode_stream(load_encoder(args), file), args.output)
        return
    if not args.texts and not args.file:
        documents = read_stdin()
        if sys.stdin.isatty():
            sys.stderr.write("lam: reading texts from the terminal, one a line, up to Ctrl-D\n")
    model = load_encoder(args, soon=bool(args.texts))
    if args.passages:
        chunks = encode_passages(model.encode_passages, documents)
    else:
        more = {} if hasattr(model, "read") else {"batch_size": args.batch_size, "show_progress_bar": False}
        chunks = encode_chunks(partial(model.encode, **more), documents)
    write_chunks(chunks, args.output)


def add_search(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "search",
        help="find the documents of a corpus that fit a query",
        description="Find the documents that fit a query, by the cosine of their vectors; "
        "a document counts as its best passage, which is shown with the sentences around it. "
        "The vectors of the corpus are kept beside it, in CORPUS.jsonl.lam.npz.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS.jsonl", help="objects with `text`, `title` and `_id`")
    parser.add_argument("queries", nargs="+", metavar="QUERY")
    parser.add_argument("-k", "--top-k", type=positive, default=5, metavar="N", help="documents a query (default: 5)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    parser.add_argument("--no-cache", action="store_true", help="neither use nor keep the vectors beside the corpus")
    add_dim(parser)
    add_model_options(parser)
    parser.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> None:
    from ..index.search import embed_corpus, read_corpus, search

    read_corpus(args.corpus)  # a bad one is refused before the model is loaded
    model = load_encoder(args)
    key = None if args.no_cache else model.key
    documents, index = embed_corpus(model, args.corpus, key, args.batch_size)
    for query, hits in zip(args.queries, search(model, args.queries, documents, index, args.top_k), strict=True):
        sys.stdout.write(f"{query}\n")
        for rank, hit in enumerate(hits, start=1):
            sys.stdout.write(f"{rank:4}  {hit.score:.3f}  {hit.title or hit.id}\n")
            sys.stdout.write(f"{'':13}{textwrap.shorten(hit.text[:400], 100, placeholder=' ...')}\n")
            if hit.passage:
                sys.stdout.write(f"{'':6}characters {hit.passage.start} to {hit.passage.end}:\n")
                shown = textwrap.wrap(hit.passage.window, 100, max_lines=_PASSAGE_LINES, placeholder=" ...")
                sys.stdout.writelines(f"{'':13}{line}\n" for line in shown)
        sys.stdout.write("\n")
