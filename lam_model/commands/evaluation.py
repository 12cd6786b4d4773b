"""`lam compare`, `lam eval` and `lam mteb`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_model_options, check_not_read, command_line, load_model, positive, read_files

if TYPE_CHECKING:
    from ..corpus.documents import Document
    from ..runtime.loading import Lam
    from .options import Subparsers


def add_compare(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="LAM beside all-MiniLM-L6-v2: cosine, speed, scores",
        description="Compare LAM's vectors with all-MiniLM-L6-v2's on texts, and the scores of both on mteb tasks.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument(
        "-f", "--file", nargs="+", action="extend", type=Path, default=[], metavar="FILE", help="as for encode"
    )
    parser.add_argument(
        "--held-out",
        nargs="+",
        action="extend",
        default=[],
        metavar="DATA",
        help="the held-out texts of training data, as evaluated there",
    )
    parser.add_argument("--guard", type=Path, metavar="FILE", help="evaluation texts to leave out of the held-out ones")
    parser.add_argument(
        "--tasks",
        nargs="+",
        action="extend",
        default=[],
        metavar="TASK",
        help="mteb tasks, such as SciFact STSBenchmark",
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="holds the tasks' data: mteb/scifact, ...")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON of the figures")
    add_model_options(parser)
    parser.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
    from ..evaluation.compare import compare_texts, load_base
    from ..evaluation.provenance import provenance
    from ..evaluation.scores import evaluate, table
    from ..files import check_file, write_json

    if not (args.texts or args.file or args.held_out or args.tasks):
        raise ValueError("there is nothing to compare: give texts, --file, --held-out or --tasks")
    if args.output:
        check_file(args.output)
    check_not_read(args.output, [*args.file, *map(Path, args.held_out), *filter(None, [args.guard])])
    given: dict[str, list[str]] = {}
    genres: dict[str, list[str]] = {}
    if args.held_out:
        given["held_out"], genres = _held_out(args)
    if args.texts or args.file:
        given["texts"] = [document.whole for document in read_files(args)] if args.file else args.texts
        if not given["texts"]:
            raise ValueError(f"there are no texts to compare: {shlex.join(map(str, args.file))} is empty")
    lam = load_model(args)
    figures: dict[str, Any] = {
        "deltanet_sha256": lam.manifest["deltanet_sha256"],
        **provenance(command_line(), map(Path, args.held_out)),
    }
    base = load_base() if given else None
    for name, texts in given.items():
        figures[name] = compare_texts(lam, base, texts)
    if genres:
        figures["genres"] = {genre: _cosine(compare_texts(lam, base, texts)) for genre, texts in genres.items()}
        for genre, found in figures["genres"].items():
            worst = found["worst_5_percent"]
            sys.stdout.write(f"{genre:26}{found['cosine']} (worst 5 %: {worst}) of {found['texts']} texts\n")
    for name in ("held_out", "texts"):
        for figure, value in figures.get(name, {}).items():
            sys.stdout.write(f"{figure:26}{value}\n")
    if args.tasks:
        figures["scores"], tasks = evaluate(_loader(args), args.tasks, args.folder.resolve(), only_pair=True)
        sys.stdout.write(table(figures["scores"], tasks) + "\n")
    if args.output:
        write_json(args.output, figures)


def _cosine(figures: dict[str, float]) -> dict[str, float]:
    return {name: figures[name] for name in ("texts", "cosine", "worst_5_percent")}


def _held_out(args: argparse.Namespace) -> tuple[list[str], dict[str, list[str]]]:
    """500 texts evenly of all columns, and all of each genre."""
    from ..training.data import held_out_genres, held_out_texts, read_guard, read_texts

    guard = read_guard(args.guard) if args.guard else frozenset()
    data = read_texts(args.held_out)
    texts = held_out_texts(data, guard, 500)
    if not texts:
        raise ValueError(f"none of the texts in {shlex.join(args.held_out)} is held out: give more, or give --file")
    return texts, held_out_genres(data, guard)


def _loader(args: argparse.Namespace) -> Callable[..., Lam]:
    if args.model and Path(args.model).is_dir():
        args.model = str(Path(args.model).resolve())  # tasks are read from another working directory

    def load(base_only: bool = args.base_only) -> Lam:
        return load_model(argparse.Namespace(**{**vars(args), "base_only": base_only}))

    return load


def add_eval(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="mteb scores beside all-MiniLM-L6-v2, base-only and BM25",
        description="Score LAM on mteb tasks, beside all-MiniLM-L6-v2, LAM without its DeltaNet layers and BM25.",
    )
    parser.add_argument(
        "tasks",
        nargs="+",
        metavar="SUITE_OR_TASK",
        help="sts, retrieval, long, or names of mteb tasks; or `context` and folders of documents.jsonl and "
        "queries.jsonl, whose queries are answered by passages",
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="holds the tasks' data, mteb/scifact, ... (default: from the Hub)"
    )
    parser.add_argument(
        "--articles",
        type=Path,
        metavar="FILE",
        help="with `long` and `context`: .jsonl or .parquet (`text`, `title`); those held out of training make "
        "retrieval sets",
    )
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs="+",
        metavar="N",
        help="with `context`: most tokens of a passage, each size measured in turn (default: 80)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="JSON of the figures; those in it are not measured again"
    )
    add_model_options(parser)
    parser.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> None:
    from ..evaluation.scores import evaluate, table

    if args.tasks[0] == "context":
        _eval_context(args)
        return
    if args.sizes:
        raise ValueError("--sizes are for `lam eval context`: leave them out")
    if "long" in args.tasks:
        if len(args.tasks) > 1:
            raise ValueError("`long` has a table of its own: run it in a command of its own")
        _eval_long(args)
        return
    if args.articles:
        raise ValueError("--articles are for `lam eval long` and `lam eval context`: leave them out")
    before = _figures_before(args.output)
    folder = args.folder and args.folder.resolve()
    figures, done = _kept_figures(args, before, load_model(args), [folder] if folder else [])
    scores, tasks = evaluate(_loader(args), args.tasks, folder, figures["scores"], done)
    figures["tasks"] |= tasks
    done(scores)
    sys.stdout.write(table(scores, tasks) + "\n")


def _eval_long(args: argparse.Namespace) -> None:
    from ..evaluation.long import evaluate_long, long_table
    from ..evaluation.long_sets import all_sets

    documents = _held_out_articles(args)
    check_not_read(args.output, [args.articles] if args.articles else [])
    before = _figures_before(args.output)
    lam = load_model(args)
    figures, done = _kept_figures(args, before, lam, [args.articles] if args.articles else [])
    sets = all_sets(lam.tokenizer, documents, args.folder and args.folder.resolve())
    figures["tasks"] |= {name: one.about() for name, one in sets.items()}
    done(evaluate_long(lam, sets, figures["scores"], done))
    sys.stdout.write(long_table(figures["scores"], figures["tasks"]) + "\n")


def _eval_context(args: argparse.Namespace) -> None:
    from ..evaluation.context import SIZE, context_table, evaluate_context
    from ..evaluation.context_sets import made_up_sets, read_context_set
    from ..reading.tokenizing import plain_tokenizer

    folders = [Path(name) for name in args.tasks[1:]]
    if not folders and not args.articles:
        raise ValueError("there is nothing to measure: name folders after `context`, or give --articles")
    if args.folder:
        raise ValueError("--folder is for mteb tasks: name the folders of `lam eval context` after `context`")
    sets = {}
    for folder in folders:
        name = folder.absolute().name
        if name in sets:
            raise ValueError(f"two folders are named {name}: rename one, for figures are kept by name")
        sets[name] = read_context_set(folder)
    documents = _held_out_articles(args)
    data = [*folders, *filter(None, [args.articles])]
    check_not_read(args.output, data)
    before = _figures_before(args.output)
    lam = load_model(args)
    if documents:
        sets |= made_up_sets(plain_tokenizer(lam.tokenizer), documents)
    figures, done = _kept_figures(args, before, lam, data)
    figures["tasks"] |= {name: one.about() for name, one in sets.items()}
    done(evaluate_context(lam, sets, args.sizes or (SIZE,), figures["scores"], done))
    sys.stdout.write(context_table(figures["scores"], figures["tasks"]) + "\n")


def _held_out_articles(args: argparse.Namespace) -> list[Document]:
    from ..corpus.documents import read
    from ..training.data import is_held_out_document

    documents = [d for d in read(args.articles) if is_held_out_document(d.text)] if args.articles else []
    if args.articles and not documents:
        raise ValueError(f"none of the texts in {args.articles} is held out: give more, of more than 8,000 characters")
    return documents


def _figures_before(output: Path | None) -> dict[str, Any]:
    """What was measured before, in --output."""
    from ..files import check_file, read_text

    if output:
        check_file(output)
    text = read_text(output) if output and output.is_file() else ""
    try:
        figures = json.loads(text) if text.strip() else {"scores": {}, "tasks": {}}
    except ValueError as error:
        raise ValueError(f"{output} is not JSON ({error}): give --output another name") from error
    if not isinstance(figures, dict) or not all(isinstance(figures.get(name), dict) for name in ("scores", "tasks")):
        raise ValueError(f"{output} holds no scores of `lam eval`: give --output another name")
    return figures


def _kept_figures(
    args: argparse.Namespace, figures: dict[str, Any], lam: Lam, data: list[Path]
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], None]]:
    """The figures of before that are still valid, and a function that keeps scores; other weights' are dropped."""
    from ..evaluation.provenance import provenance
    from ..evaluation.scores import without_lam
    from ..files import write_json

    output = args.output and args.output.absolute()  # tasks are read from another working directory
    run_by = {"dtype": args.dtype or "float32", "backend": args.backend or "torch"}
    run_by["deltanet_sha256"] = lam.manifest["deltanet_sha256"]
    if any(figures.get(name, "torch") != value for name, value in run_by.items()):
        figures["scores"] = without_lam(figures["scores"])
    figures |= {**run_by, **provenance(command_line(), data)}

    def keep(scores: dict[str, Any]) -> None:
        figures["scores"] = scores
        if output:
            write_json(output, figures)

    return figures, keep


def add_mteb(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "mteb",
        help="mteb's own command, which then knows the models lam and lam-base",
        description="mteb's own command line, with the models lam and lam-base: `lam mteb run -m lam -t SciFact`. "
        "The environment variable LAM_MODEL_PATH names a model folder to take instead of the packaged weights.",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what `mteb` takes")
    parser.set_defaults(run=run_mteb)


def run_mteb(args: argparse.Namespace) -> None:
    try:
        from mteb.cli.build_cli import main as mteb_main
    except ImportError as error:
        raise ImportError("mteb is not installed: pip install 'lam-model[mteb]'") from error
    sys.argv = ["mteb", *args.arguments]
    mteb_main()
