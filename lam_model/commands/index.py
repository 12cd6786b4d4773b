"""`lam index` and `lam search`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_columns, add_dim, add_model_options, columns_of, load_encoder, positive

if TYPE_CHECKING:
    from ..index.search import Hit
    from .options import Subparsers

_PASSAGE_LINES = 7  # of a passage that was found, and the sentences around it


def add_index(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "index",
        help="keep documents and their vectors in a folder, to be searched",
        description="Add documents to an index: a folder, made if it is not there, that `lam search` finds them in. "
        "A document with the id of another replaces it; one that is there already is not encoded again.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "-f",
        "--file",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="as for `lam encode`: .txt, .jsonl or .parquet files, or folders of .jsonl and .parquet files",
    )
    action.add_argument("--delete", nargs="+", action="extend", metavar="ID", help="delete documents")
    parser.add_argument("--passage-size", type=positive, metavar="N", help="most tokens of a passage (default: 32)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="with torch; default: 32")
    add_columns(parser)
    add_dim(parser)
    add_model_options(parser)
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> None:
    from ..corpus.documents import read
    from ..index.lance import LanceIndex

    # Whatever can be refused is refused before the model is loaded.
    own = {"keep": args.keep or None, "passage_size": args.passage_size}
    index = LanceIndex(args.folder, **own)
    if args.delete:
        sys.stdout.write(f"{index.delete(args.delete)} of {len(set(args.delete))} documents deleted\n")
        return
    documents = read(*args.file, columns=columns_of(args)._replace(keep=index.keep))
    index = LanceIndex(args.folder, load_encoder(args), **own)
    added = index.add(documents, args.batch_size)
    sys.stdout.write(
        f"{added.new:,} documents added, {added.replaced:,} replaced, {added.unchanged:,} unchanged: "
        f"{len(index):,} passages in {args.folder}\n"
    )
    if added.recall is not None:
        sys.stdout.write(f"ANN index made: recall@10 {added.recall:.3f}, against the exact search\n")


def add_search(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "search",
        help="find the documents of an index or a corpus that fit a query",
        description="Find the documents that fit a query, by their vectors and, in an index, by their words too. "
        "A document counts as its best passage, which is shown with the sentences around it. "
        "The vectors of a .jsonl file are kept beside it, in CORPUS.jsonl.lam.npz.",
    )
    parser.add_argument(
        "corpus",
        type=Path,
        metavar="CORPUS",
        help="the folder of an index, or a .jsonl file of objects with `text`, `title` and `_id`",
    )
    parser.add_argument("queries", nargs="+", metavar="QUERY")
    parser.add_argument("-k", "--top-k", type=positive, default=5, metavar="N", help="documents a query (default: 5)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    parser.add_argument("--no-cache", action="store_true", help="neither use nor keep the vectors beside the corpus")
    options = parser.add_argument_group("of an index")
    options.add_argument(
        "--where", metavar="SQL", help='a condition on `id`, `title` and kept columns, such as "year > 1990"'
    )
    options.add_argument(
        "--hybrid",
        action=argparse.BooleanOptionalAction,
        help="rank by vectors and words, by reciprocal rank fusion (default), or by vectors alone",
    )
    add_dim(parser)
    add_model_options(parser)
    parser.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> None:
    for query, hits in zip(args.queries, (_in_index if args.corpus.is_dir() else _in_corpus)(args), strict=True):
        sys.stdout.write(f"{query}\n")
        for rank, hit in enumerate(hits, start=1):
            _write(rank, hit)
        sys.stdout.write("\n")


def _in_index(args: argparse.Namespace) -> list[list[Hit]]:
    from ..index.lance import LanceIndex

    len(LanceIndex(args.corpus))  # a bad one is refused before the model is loaded
    index = LanceIndex(args.corpus, load_encoder(args))
    return index.search(args.queries, args.top_k, args.where, hybrid=args.hybrid is not False)


def _in_corpus(args: argparse.Namespace) -> list[list[Hit]]:
    from ..index.search import embed_corpus, read_corpus, search

    if args.where or args.hybrid:
        option = "--where" if args.where else "--hybrid"
        raise ValueError(f"{option} is for an index, and {args.corpus} is a file: make one with `lam index`")
    read_corpus(args.corpus)  # a bad one is refused before the model is loaded
    model = load_encoder(args)
    key = None if args.no_cache else model.key
    documents, index = embed_corpus(model, args.corpus, key, args.batch_size)
    return search(model, args.queries, documents, index, args.top_k)


def _write(rank: int, hit: Hit) -> None:
    sys.stdout.write(f"{rank:4}  {hit.score:.3f}  {hit.title or hit.id}\n")
    if hit.kept:
        sys.stdout.write(f"{'':13}{', '.join(f'{name}: {value}' for name, value in hit.kept.items())}\n")
    sys.stdout.write(f"{'':13}{textwrap.shorten(hit.text[:400], 100, placeholder=' ...')}\n")
    if hit.passage:
        sys.stdout.write(f"{'':6}characters {hit.passage.start} to {hit.passage.end}:\n")
        shown = textwrap.wrap(hit.passage.window, 100, max_lines=_PASSAGE_LINES, placeholder=" ...")
        sys.stdout.writelines(f"{'':13}{line}\n" for line in shown)
