"""`lam build`, `lam verify`, `lam export` and `lam publish`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .options import Subparsers


def add_build(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "build", help="write a whole model folder", description="Join base and DeltaNet weights into a model folder."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="of the DeltaNet layers (default: the packaged ones)"
    )
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="what they were trained for (default: all-MiniLM-L6-v2)"
    )
    parser.set_defaults(run=_build)


def _build(args: argparse.Namespace) -> None:
    from ..folder.build import PACKAGED_WEIGHTS, build
    from ..folder.manifest import verify
    from ..runtime.embed import embed

    build(args.out, embed, args.weights or PACKAGED_WEIGHTS, args.base)
    sys.stdout.write("".join(f"{line}\n" for line in [f"built {args.out}", *verify(args.out, embed)]))


def add_verify(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a model folder",
        description="Check hashes, keys, shapes, dtypes, finiteness and golden vectors of a model folder.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="first make the folder whole, if a trainer saved it: code, manifest, golden",
    )
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> None:
    from ..folder.build import adopt
    from ..folder.manifest import verify
    from ..runtime.embed import embed

    if args.adopt:
        adopt(args.folder, embed)
    sys.stdout.write("".join(f"{line}\n" for line in verify(args.folder, embed)))


def add_export(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("export", help="ONNX graphs: write or check them")
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    write = kinds.add_parser(
        "onnx",
        help="write graphs into a model folder",
        description="Write ONNX graphs into OUT/onnx, each only if it gives torch's vectors. "
        "OUT is a model folder; one of the packaged weights is built if there is none.",
    )
    write.add_argument("out", type=Path, metavar="OUT")
    write.add_argument(
        "--variant", choices=["full", "base", "both"], default="both", help="base: the DeltaNet layers skipped"
    )
    write.add_argument("--quantize", choices=["int8"], help="write the same graphs with 8-bit weights too")
    write.add_argument(
        "--portable", action="store_true", help="write the full graph in standard operators too, for other runtimes"
    )
    write.set_defaults(run=_export)
    graphs = kinds.add_parser(
        "packaged",
        help="write the graphs that the package brings, for its developers",
        description="Write the graphs of a block without their weights, as the package brings them, into OUT.",
    )
    graphs.add_argument("out", type=Path, metavar="OUT")
    graphs.set_defaults(run=_export_packaged)
    check = kinds.add_parser("verify", help="compare a folder's graphs with torch")
    check.add_argument("folder", type=Path, metavar="DIR")
    check.set_defaults(run=_verify_export)


def _export(args: argparse.Namespace) -> None:
    from ..files import is_free
    from ..folder.build import build
    from ..runtime.embed import embed

    lam_export = _lam_export()
    if is_free(args.out):
        build(args.out, embed)
    variants = ("full", "base") if args.variant == "both" else (args.variant,)
    _write_figures(lam_export.export(args.out, variants, int8=args.quantize == "int8", standard=args.portable))


def _export_packaged(args: argparse.Namespace) -> None:
    _lam_export().write_packaged(args.out)


def _verify_export(args: argparse.Namespace) -> None:
    _write_figures(_lam_export().verify(args.folder))


def _lam_export() -> Any:
    try:
        import lam_export
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'lam-model[export]'") from error
    return lam_export


def _write_figures(graphs: list[dict[str, Any]]) -> None:
    for graph in graphs:
        sys.stdout.write(
            "{file}: {megabytes:.1f} MB, largest difference to torch {largest_difference:.1e} and least cosine "
            "{least_cosine:.6f} on {texts} texts\n".format(megabytes=graph["bytes"] / 1e6, **graph)
        )


def add_publish(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "publish",
        help="send a model folder to the Hub",
        description="Verify a model folder with its card and send it to the Hub as one commit.",
    )
    parser.add_argument("repo", metavar="REPO", help="owner/name on the Hub; made if it is not there")
    parser.add_argument(
        "--folder", type=Path, required=True, metavar="DIR", help="as `lam build` wrote it, its card as README.md"
    )
    parser.add_argument("--private", action="store_true", help="only those whom the owner lets in can see it")
    parser.add_argument("--revision", metavar="BRANCH", help="to commit to; made if it is not there (default: main)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    parser.set_defaults(run=_publish)


def _publish(args: argparse.Namespace) -> None:
    from ..folder.publish import publish
    from ..runtime.embed import embed

    def announce(sizes: dict[str, int]) -> None:
        for name, size in {**sizes, "in all": sum(sizes.values())}.items():
            sys.stdout.write(f"{size:>14,}  {name}\n")
        sys.stdout.flush()

    url = publish(args.repo, args.folder, embed, args.private, args.revision, args.dry_run, announce)
    sys.stdout.write(f"{url or 'dry run: nothing was sent'}\n")
