"""`lam map`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_model_options, check_not_read, load_encoder, positive

if TYPE_CHECKING:
    from .options import Subparsers


def add_map(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "map",
        help="draw documents as a map to look at",
        description="Draw documents as a map in one HTML page: those of like meaning are near each other, in clusters "
        "with a few words of each. Point at a document for its title, click for its text, type to filter.",
    )
    parser.add_argument("corpus", nargs="+", type=Path, metavar="FILE", help="documents, as for `lam encode --file`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html", help="the page to write")
    parser.add_argument(
        "--clusters", type=positive, metavar="N", help="at most (default: by the number of documents, 16 at most)"
    )
    add_model_options(parser)
    parser.set_defaults(run=_map)


def _map(args: argparse.Namespace) -> None:
    import numpy as np

    from ..corpus.documents import read
    from ..corpus.vectors import in_chunks
    from ..files import check_file
    from ..index.map import check_libraries, write_map

    # Whatever can be refused is refused before the model is loaded.
    check_libraries()
    check_file(args.output)
    check_not_read(args.output, args.corpus)
    documents = list(read(*args.corpus))
    names = ", ".join(path.name for path in args.corpus)
    if not documents:
        raise ValueError(f"{names} holds no documents: there is nothing to draw")
    model = load_encoder(args)
    vectors = [np.asarray(model.encode([d.whole for d in chunk]), np.float32) for chunk in in_chunks(documents)]
    count = write_map(documents, np.concatenate(vectors), args.output, names, args.clusters)
    sys.stdout.write(f"{args.output}: {len(documents)} documents in {count} clusters\n")
