"""`lam train`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..training.recipe import ContextRecipe, Recipe, TuneRecipe
from .options import command_line, positive

if TYPE_CHECKING:
    from .options import Subparsers


def add_train(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("train", help="train DeltaNet layers")
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    distill = kinds.add_parser(
        "distill",
        help="to do what the base's attention does",
        description="Train DeltaNet layers to do what a BERT sentence encoder's attention does. "
        "The run is kept in OUT; the same command goes on after a kill.",
    )
    distill.add_argument("out", type=Path, metavar="OUT", help="the run's folder")
    distill.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        metavar="DATA",
        help=".parquet or .jsonl files, or dataset names on the Hub",
    )
    distill.add_argument("--guard", type=Path, metavar="FILE", help="normalised texts never to train on, one a line")
    distill.add_argument("--teacher", type=Path, metavar="DIR", help="a BERT sentence encoder, if not all-MiniLM-L6-v2")
    distill.add_argument("--weights", type=Path, metavar="FILE", help="DeltaNet weights to go on from")
    distill.add_argument("--device", help="cpu or cuda; cuda where there is one, unless given")
    distill.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="of the dense layers; bfloat16 where it is fast, unless given"
    )
    _add_recipe(distill, Recipe)
    distill.set_defaults(run=_distill)
    tune = kinds.add_parser(
        "tune",
        help="to be better at retrieval or similarity",
        description="Tune the DeltaNet layers on judged queries, pairs, triplets, scored pairs or plain texts, without "
        "losing similarity: an anchor to the base's vectors, and held-out scores that choose the checkpoint and stop "
        "the run. The run is kept in OUT; the same command goes on after a kill.",
    )
    tune.add_argument("out", type=Path, metavar="OUT", help="the run's folder")
    tune.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML of the options below by their names; an entry of `data` may be a mapping of `data`, `weight` (times "
        "an epoch), `max_tokens` and `limit` (of queries, pairs or texts)",
    )
    tune.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=argparse.SUPPRESS,
        metavar="DATA",
        help="folders of corpus.jsonl, queries.jsonl and qrels/train; .jsonl, .csv, .tsv or .parquet files of queries, "
        "documents and perhaps negatives, or of two sentences and a score; or dataset names on the Hub",
    )
    for flag, metavar, text in (
        ("--guard", "FILE", "normalised texts never to train on, one a line"),
        ("--weights", "FILE", "DeltaNet weights to start from (default: the packaged ones)"),
        ("--base", "DIR", "what they were trained for (default: all-MiniLM-L6-v2)"),
        ("--teacher", "NAME_OR_FOLDER", "a stronger sentence-transformers model, for --loss teacher"),
        ("--device", "DEVICE", "cpu or cuda; cuda where there is one, unless given"),
    ):
        tune.add_argument(flag, metavar=metavar, default=argparse.SUPPRESS, help=text)
    tune.add_argument(
        "--watch",
        nargs="+",
        action="extend",
        default=argparse.SUPPRESS,
        metavar="DATA",
        help="the same kinds of data, of a validation or dev split: not trained on, but must not lose",
    )
    tune.add_argument(
        "--show-negatives",
        type=positive,
        metavar="N",
        help="only print what was mined for so many queries of each set",
    )
    _add_recipe(tune, TuneRecipe)
    tune.set_defaults(run=_tune)
    context = kinds.add_parser(
        "context",
        help="to know in each passage its document",
        description="Train the DeltaNet layers so that passages know their document, by questions that a passage "
        "answers. The run is kept in OUT; the same command goes on after a kill.",
    )
    context.add_argument("out", type=Path, metavar="OUT", help="the run's folder")
    for flag, metavar, kind, text in (
        ("--sets", "FOLDER", Path, "folders of documents.jsonl and queries.jsonl, as for `lam eval context`"),
        ("--documents", "FILE", Path, ".parquet or .jsonl files of title and text, or title, headings and sections"),
        ("--pairs", "FILE", Path, ".parquet or .jsonl files of query and passage"),
        ("--sources", "NAME", str, "take only pairs whose `source` is one of these"),
        ("--texts", "DATA", str, "plain texts to stay near the base on, as for `lam train distill`"),
    ):
        needed = flag in ("--sets", "--texts")
        context.add_argument(
            flag, nargs="+", action="extend", type=kind, default=None if needed else [], required=needed,
            metavar=metavar, help=text,
        )  # fmt: skip
    context.add_argument("--guard", type=Path, metavar="FILE", help="normalised texts never to train on, one a line")
    context.add_argument("--weights", type=Path, metavar="FILE", help="DeltaNet weights to start from")
    context.add_argument("--base", type=Path, metavar="DIR", help="what they were trained for, if not all-MiniLM-L6-v2")
    context.add_argument("--device", help="cpu or cuda; cuda where there is one, unless given")
    _add_recipe(context, ContextRecipe)
    context.set_defaults(run=_context)
    average = kinds.add_parser(
        "average",
        help="the mean of two weights files",
        description="Write the mean of two files of DeltaNet weights, such as tuned ones and those they started from.",
    )
    average.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    average.add_argument("weights", type=Path, metavar="FILE")
    average.add_argument("other", type=Path, metavar="OTHER")
    average.add_argument(
        "--share", type=float, default=0.5, metavar="X", help="how much FILE counts, 0 to 1 (default: 0.5)"
    )
    average.set_defaults(run=_average)


def _add_recipe(parser: argparse.ArgumentParser, recipe: type) -> None:
    """An option for each field; those that are not given are not among the arguments."""
    group = parser.add_argument_group("recipe")
    for field in fields(recipe):
        more = dict(field.metadata)
        text = more.pop("help")
        shown = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        if isinstance(field.default, bool):
            more["action"] = "store_true"
        else:
            more.setdefault("type", type(field.default))
            more.setdefault("metavar", None if "choices" in more else "N")
            text += f" (default: {shown})" if shown not in (None, "") else ""
        group.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **more)


def _recipe(recipe: type, options: dict[str, Any]) -> Any:
    """The recipe of the options that are its fields, which are taken out of them."""
    chosen = {}
    for field in fields(recipe):
        if (value := options.pop(field.name, None)) is not None:
            kind = field.metadata.get("type", type(field.default))
            chosen[field.name] = tuple(map(kind, value)) if isinstance(field.default, tuple) else kind(value)
    return recipe(**chosen)


def _distill(args: argparse.Namespace) -> None:
    from ..evaluation.provenance import provenance
    from ..folder.base import find_base
    from ..training.data import read_guard, read_texts
    from ..training.distill import Run
    from ..training.processes import join

    recipe = _recipe(Recipe, vars(args))
    join(args.device)
    guard = read_guard(args.guard) if args.guard else frozenset()
    source = provenance(command_line(), [path for path in map(Path, args.data) if path.is_file()])
    run = Run(
        args.teacher or find_base(),
        read_texts(args.data),
        args.out,
        recipe,
        guard,
        weights=args.weights,
        device=args.device,
        dtype=args.dtype,
        source=source,
    )
    run.train()
    sys.stdout.write(f"{args.out / 'deltanet.safetensors'}: {run.log[-1]}\n")


def _tune(args: argparse.Namespace) -> None:
    try:
        import yaml  # noqa: F401

        from ..training import processes, tune
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'lam-model[train]'") from error
    from ..evaluation.provenance import provenance
    from ..training.data import read_guard

    given = {k: v for k, v in vars(args).items() if k not in ("run", "out", "config", "show_negatives")}
    options = _read_options(args.config) if args.config else {}
    options |= given
    recipe = _recipe(TuneRecipe, options)
    sources = [_source(tune.Source, one) for one in options.pop("data", [])]
    watch, guard, device = options.pop("watch", []), options.pop("guard", None), options.pop("device", None)
    weights, base, teacher = (options.pop(name, None) for name in ("weights", "base", "teacher"))
    if options:
        raise ValueError(f"{args.config} has {', '.join(options)}: these are no options of `lam train tune`")
    if not sources:
        raise ValueError("there is nothing to train on: give --data")
    processes.join(device)
    with processes.in_turn():
        start = tune.start(args.out, weights, base, teacher, device)
        data, watched, left_out = tune.prepare(
            sources,
            watch,
            recipe,
            read_guard(Path(guard)) if guard else frozenset(),
            start.model.tokenizer,
            start.embedders,
        )
    if args.show_negatives:
        for name, (rows, _) in data.items():
            sys.stdout.write(f"{name}: {len(rows)} rows\n")
            for row in rows.select(range(min(args.show_negatives, len(rows)))):
                sys.stdout.writelines(f"{column:12}{textwrap.shorten(str(row[column]), 200)}\n" for column in row)
                sys.stdout.write("\n")
        return
    files = [Path(one.data) for one in sources if Path(one.data).exists()] + [Path(one) for one in watch]
    source = provenance(command_line(), files) | {"guarded": left_out}
    run = tune.Tuning(start, data, watched, args.out, recipe, source)
    run.train()
    sys.stdout.write(f"{args.out / 'deltanet.safetensors'}: {run.best()}\n")


def _context(args: argparse.Namespace) -> None:
    try:
        from ..training import context, context_data, processes, tune
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'lam-model[train]'") from error
    from ..evaluation.provenance import provenance
    from ..training.data import read_guard

    recipe = _recipe(ContextRecipe, vars(args))
    guard = read_guard(args.guard) if args.guard else frozenset()
    sets, documents, pairs = args.sets, args.documents, args.pairs
    processes.join(args.device)
    with processes.in_turn():
        start = tune.start(args.out, args.weights, args.base, device=args.device)
        steps, watched = context_data.prepare(sets, documents, pairs, args.texts, args.sources, guard, start, recipe)
    texts = [path for path in map(Path, args.texts) if path.is_file()]
    source = provenance(command_line(), [*sets, *documents, *pairs, *texts])
    run = context.ContextTraining(start.model, start.base, steps, watched, args.out, recipe, source)
    run.run()
    sys.stdout.write(f"{args.out / 'deltanet.safetensors'}\n")


def _average(args: argparse.Namespace) -> None:
    from ..training.weights import average

    average(args.weights, args.other, args.share, args.out)
    sys.stdout.write(f"{args.out}\n")


def _source(kind: type, given: str | dict[str, Any]) -> Any:
    names = [field.name for field in fields(kind)]
    if isinstance(given, dict) and ("data" not in given or not set(given) <= set(names)):
        raise ValueError(
            f"an entry of `data` has {', '.join(given)}: it needs `data`, and may have {', '.join(names[1:])}"
        )
    return kind(**(given if isinstance(given, dict) else {"data": given}))


def _read_options(path: Path) -> dict[str, Any]:
    import yaml

    from ..files import read_text

    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML ({error}): write option names and values, as `epochs: 2`") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no mapping of option names to values, such as `learning_rate: 1e-4`")
    return {name.replace("-", "_"): value for name, value in content.items()}
