"""The command `lam`. Each subcommand imports what it needs when it runs, so that `lam --help` is instant."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import textwrap
import warnings
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import __version__
from .training.recipe import Recipe, TuneRecipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .index.encode import Document
    from .runtime.loading import Lam

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


_PASSAGE_LINES = 4  # of a passage that was found


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the command's name; those of the process if None.

    Returns:
        The exit code: 0, 2 for an error that a sentence on stderr explains, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(prog="lam", description="all-MiniLM-L6-v2 that reads whole documents.")
    parser.add_argument("--version", action="version", version=f"lam {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_encode,
        _add_search,
        _add_compare,
        _add_eval,
        _add_mteb,
        _add_build,
        _add_verify,
        _add_export,
        _add_publish,
        _add_train,
    ):
        add(subparsers)
    closed = _open_outputs()
    args = parser.parse_args(argv)
    try:
        if closed and not getattr(args, "output", None):
            raise ValueError("standard output is closed: open it, or send it to /dev/null")
        with nullcontext() if args.run is _mteb else _hushed():  # mteb's own command says what it likes
            args.run(args)
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
    return 0


def _open_outputs() -> bool:
    """Make stdout and stderr take every character, and be there; whether stdout was closed."""
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
    """Only LAM's own progress, warnings and errors go to stderr: not those of what it is made of."""
    levels = {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "critical",
        "TORCH_LOGS": "-all",
    }
    levels = {name: level for name, level in levels.items() if name not in os.environ}
    os.environ.update(levels)
    with suppress(ImportError):  # without it there is nothing to be hushed either
        import wrapt

        wrapt.register_post_import_hook(_hush_transformers, "transformers.utils.logging")
        wrapt.register_post_import_hook(lambda module: module.disable_progress_bars(), "datasets.utils.tqdm")
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
    """If stdout takes no more, as on a full disk, let the error say so."""
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


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive number")
    return int(value)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("model")
    options.add_argument("--model", metavar="PATH_OR_REPO", help="a model folder or a name on the Hub")
    options.add_argument("--revision", help="of the model on the Hub: a branch, a tag or a commit")
    options.add_argument("--device", help="cpu, cuda, mps, ...: the best there is, unless given")
    options.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16", "int8"], help="of the weights; int8 with --backend onnx"
    )
    options.add_argument(
        "--backend",
        choices=["torch", "onnx"],
        help="onnx: ONNX Runtime (default: torch; onnx where its graph is at hand, for TEXTs of `encode`)",
    )
    options.add_argument("--base-only", action="store_true", help="without the DeltaNet layers: faster, far less apt")


def _load(args: argparse.Namespace) -> Lam:
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


def _add_encode(subparsers: Subparsers) -> None:
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
        help=".txt (one text a line), .jsonl or .parquet (`text`, perhaps `title` and `_id`), or folders of the latter",
    )
    parser.add_argument(
        "--stream", type=Path, metavar="FILE", help="UTF-8 of any size that is one text, read in flat memory"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".npy, .jsonl or .parquet (default: jsonl to stdout)"
    )
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="default: 32")
    _add_dim(parser)
    _add_model_options(parser)
    parser.set_defaults(run=_encode)


def _add_dim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dim", type=_positive, metavar="N", help="size of the vectors: 384, 256, 128 or 64")


def _encode(args: argparse.Namespace) -> None:
    from .index.encode import Document, check_output, encode_stream, read_stdin, write_chunks, write_vectors

    # Whatever can be refused is refused before the model is loaded.
    if args.stream and (args.texts or args.file):
        raise ValueError(f"--stream reads {args.stream} alone: give other texts in a command of their own")
    documents = _read_files(args) if args.file else map(Document, args.texts)
    if args.output:
        check_output(args.output)
    _check_not_read(args.output, [*args.file, *filter(None, [args.stream])])
    if args.stream:
        with open(args.stream, "rb") as file:
            write_chunks(encode_stream(_load(args), file), args.output)
        return
    if not args.texts and not args.file:
        documents = read_stdin()
        if sys.stdin.isatty():
            sys.stderr.write("lam: reading texts from the terminal, one a line, up to Ctrl-D\n")
    write_vectors(_without_torch(args) or _load(args), documents, args.output, args.batch_size)


def _read_files(args: argparse.Namespace) -> Iterator[Document]:
    from .index.encode import read

    if args.texts:
        raise ValueError(f"the text {args.texts[0]!r:.60} is given beside --file: give texts in a command of their own")
    return read(*args.file)


def _check_not_read(output: Path | None, paths: list[Path]) -> None:
    """Refuse an output that is among the files to be read, some of them in folders."""
    from .index.encode import input_files

    if not output:
        return
    files = [file for path in paths for file in (input_files([path]) if path.is_dir() else [path])]
    if output.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"{output} is read and would be replaced: give --output another name")


def _without_torch(args: argparse.Namespace) -> Any:
    """LAM on ONNX Runtime alone, for torch takes seconds to import; None where that is not wanted or not at hand."""
    wanted = args.backend == "onnx" or (args.backend is None and args.texts and not args.file)
    local = args.model is None or Path(args.model).is_dir()
    plain = not (args.dim or args.revision) and args.device in (None, "cpu") and args.dtype in (None, "float32", "int8")
    if not (wanted and local and plain):
        return None
    from .folder.manifest import cached
    from .runtime.onnx_encoder import OnnxEncoder, graph_file

    try:
        folder = Path(args.model) if args.model else cached()[0]
        encoder = OnnxEncoder(folder, graph_file(args.base_only, int8=args.dtype == "int8"))
    except (FileNotFoundError, ValueError, ImportError):  # `load` exports what is missing, or says what is wrong
        return None
    tokens = 128  # of a text, so that batches have the size that is asked for
    return SimpleNamespace(encode=lambda texts, batch_size, **_: encoder.encode(texts, batch_size * tokens))


def _add_search(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "search",
        help="find the documents of a corpus that fit a query",
        description="Find the documents that fit a query, by the cosine of their vectors; "
        "a document counts as its best passage, which is shown too. "
        "The vectors of the corpus are kept beside it, in CORPUS.jsonl.lam.npz.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS.jsonl", help="objects with `text`, `title` and `_id`")
    parser.add_argument("queries", nargs="+", metavar="QUERY")
    parser.add_argument("-k", "--top-k", type=_positive, default=5, metavar="N", help="documents a query (default: 5)")
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="default: 32")
    parser.add_argument("--no-cache", action="store_true", help="neither use nor keep the vectors beside the corpus")
    _add_dim(parser)
    _add_model_options(parser)
    parser.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> None:
    from .index.search import embed_corpus, model_key, read_corpus, search

    read_corpus(args.corpus)  # a bad one is refused before the model is loaded
    model = _load(args)
    key = None if args.no_cache else model_key(model)
    documents, index = embed_corpus(model, args.corpus, key, args.batch_size)
    for query, hits in zip(args.queries, search(model, args.queries, documents, index, args.top_k), strict=True):
        sys.stdout.write(f"{query}\n")
        for rank, hit in enumerate(hits, start=1):
            sys.stdout.write(f"{rank:4}  {hit.score:.3f}  {hit.title or hit.id}\n")
            sys.stdout.write(f"{'':13}{textwrap.shorten(hit.text[:400], 100, placeholder=' ...')}\n")
            if hit.passage:
                sys.stdout.write(f"{'':6}characters {hit.passage.start} to {hit.passage.end}:\n")
                shown = textwrap.wrap(hit.passage.text, 100, max_lines=_PASSAGE_LINES, placeholder=" ...")
                sys.stdout.writelines(f"{'':13}{line}\n" for line in shown)
        sys.stdout.write("\n")


def _add_compare(subparsers: Subparsers) -> None:
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
    _add_model_options(parser)
    parser.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
    from .evaluation.compare import compare_texts, load_base
    from .evaluation.provenance import provenance
    from .evaluation.scores import evaluate, table
    from .files import check_file, write_json

    if not (args.texts or args.file or args.held_out or args.tasks):
        raise ValueError("there is nothing to compare: give texts, --file, --held-out or --tasks")
    if args.output:
        check_file(args.output)
    _check_not_read(args.output, [*args.file, *map(Path, args.held_out), *filter(None, [args.guard])])
    given = {"held_out": _held_out(args)} if args.held_out else {}
    if args.texts or args.file:
        given["texts"] = [document.whole for document in _read_files(args)] if args.file else args.texts
        if not given["texts"]:
            raise ValueError(f"there are no texts to compare: {shlex.join(map(str, args.file))} is empty")
    lam = _load(args)
    figures: dict[str, Any] = {
        "deltanet_sha256": lam.manifest["deltanet_sha256"],
        **provenance(_command(), map(Path, args.held_out)),
    }
    for name, texts in given.items():
        figures[name] = compare_texts(lam, load_base(), texts)
    for name in ("held_out", "texts"):
        for figure, value in figures.get(name, {}).items():
            sys.stdout.write(f"{figure:26}{value}\n")
    if args.tasks:
        figures["scores"], tasks = evaluate(_loader(args), args.tasks, args.folder.resolve(), only_pair=True)
        sys.stdout.write(table(figures["scores"], tasks) + "\n")
    if args.output:
        write_json(args.output, figures)


def _held_out(args: argparse.Namespace) -> list[str]:
    from .training.data import held_out_texts, read_guard, read_texts

    guard = read_guard(args.guard) if args.guard else frozenset()
    texts = held_out_texts(read_texts(args.held_out), guard, 500)
    if not texts:
        raise ValueError(f"none of the texts in {shlex.join(args.held_out)} is held out: give more, or give --file")
    return texts


def _loader(args: argparse.Namespace) -> Callable[..., Lam]:
    if args.model and Path(args.model).is_dir():
        args.model = str(Path(args.model).resolve())  # tasks are read from another working directory

    def load(base_only: bool = args.base_only) -> Lam:
        return _load(argparse.Namespace(**{**vars(args), "base_only": base_only}))

    return load


def _add_eval(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="mteb scores beside all-MiniLM-L6-v2, base-only and BM25",
        description="Score LAM on mteb tasks, beside all-MiniLM-L6-v2, LAM without its DeltaNet layers and BM25.",
    )
    parser.add_argument(
        "tasks", nargs="+", metavar="SUITE_OR_TASK", help="sts, retrieval, long, or names of mteb tasks"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="holds the tasks' data, mteb/scifact, ... (default: from the Hub)"
    )
    parser.add_argument(
        "--articles",
        type=Path,
        metavar="FILE",
        help="with `long`: .jsonl or .parquet (`text`, `title`); those held out of training make a retrieval set",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="JSON of the figures; those in it are not measured again"
    )
    _add_model_options(parser)
    parser.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> None:
    from .evaluation.scores import evaluate, table

    if "long" in args.tasks:
        if len(args.tasks) > 1:
            raise ValueError("`long` has a table of its own: run it in a command of its own")
        _eval_long(args)
        return
    if args.articles:
        raise ValueError("--articles are for `lam eval long`: leave them out")
    before = _figures_before(args.output)
    folder = args.folder and args.folder.resolve()
    figures, done = _kept_figures(args, before, _load(args), [folder] if folder else [])
    scores, tasks = evaluate(_loader(args), args.tasks, folder, figures["scores"], done)
    figures["tasks"] |= tasks
    done(scores)
    sys.stdout.write(table(scores, tasks) + "\n")


def _eval_long(args: argparse.Namespace) -> None:
    from .evaluation.long import evaluate_long, long_table
    from .evaluation.long_sets import all_sets
    from .index.encode import read
    from .training.data import is_held_out_document

    documents = [d for d in read(args.articles) if is_held_out_document(d.text)] if args.articles else []
    if args.articles and not documents:
        raise ValueError(f"none of the texts in {args.articles} is held out: give more, of more than 8,000 characters")
    _check_not_read(args.output, [args.articles] if args.articles else [])
    before = _figures_before(args.output)
    lam = _load(args)
    figures, done = _kept_figures(args, before, lam, [args.articles] if args.articles else [])
    sets = all_sets(lam.tokenizer, documents, args.folder and args.folder.resolve())
    figures["tasks"] |= {name: one.about() for name, one in sets.items()}
    done(evaluate_long(lam, sets, figures["scores"], done))
    sys.stdout.write(long_table(figures["scores"], figures["tasks"]) + "\n")


def _figures_before(output: Path | None) -> dict[str, Any]:
    """What was measured before, in --output."""
    from .files import check_file, read_text

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
) -> tuple[dict[str, Any], Callable[[dict[str, dict[str, float]]], None]]:
    """Figures with what still holds of those before, and what keeps scores; LAM's own are only good for its weights."""
    from .evaluation.provenance import provenance
    from .evaluation.scores import without_lam
    from .files import write_json

    output = args.output and args.output.absolute()  # tasks are read from another working directory
    run_by = {"dtype": args.dtype or "float32", "backend": args.backend or "torch"}
    run_by["deltanet_sha256"] = lam.manifest["deltanet_sha256"]
    if any(figures.get(name, "torch") != value for name, value in run_by.items()):
        figures["scores"] = without_lam(figures["scores"])
    figures |= {**run_by, **provenance(_command(), data)}

    def keep(scores: dict[str, dict[str, float]]) -> None:
        figures["scores"] = scores
        if output:
            write_json(output, figures)

    return figures, keep


def _add_mteb(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "mteb",
        help="mteb's own command, which then knows the models lam and lam-base",
        description="mteb's own command line, with the models lam and lam-base: `lam mteb run -m lam -t SciFact`. "
        "The environment variable LAM_MODEL_PATH names a model folder to take instead of the packaged weights.",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what `mteb` takes")
    parser.set_defaults(run=_mteb)


def _mteb(args: argparse.Namespace) -> None:
    try:
        from mteb.cli.build_cli import main as mteb_main
    except ImportError as error:
        raise ImportError("mteb is not installed: pip install 'lam-model[mteb]'") from error
    sys.argv = ["mteb", *args.arguments]
    mteb_main()


def _command() -> str:
    return shlex.join(["lam", *sys.argv[1:]])


def _add_build(subparsers: Subparsers) -> None:
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
    from .folder.manifest import PACKAGED_WEIGHTS, build, verify

    build(args.out, args.weights or PACKAGED_WEIGHTS, args.base)
    sys.stdout.write("".join(f"{line}\n" for line in [f"built {args.out}", *verify(args.out)]))


def _add_verify(subparsers: Subparsers) -> None:
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
    from .folder.manifest import adopt, verify

    if args.adopt:
        adopt(args.folder)
    sys.stdout.write("".join(f"{line}\n" for line in verify(args.folder)))


def _add_export(subparsers: Subparsers) -> None:
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
    check = kinds.add_parser("verify", help="compare a folder's graphs with torch")
    check.add_argument("folder", type=Path, metavar="DIR")
    check.set_defaults(run=_verify_export)


def _export(args: argparse.Namespace) -> None:
    from .files import is_free
    from .folder.manifest import build

    lam_export = _lam_export()
    if is_free(args.out):
        build(args.out)
    variants = ("full", "base") if args.variant == "both" else (args.variant,)
    _write_figures(lam_export.export(args.out, variants, int8=args.quantize == "int8", standard=args.portable))


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


def _add_publish(subparsers: Subparsers) -> None:
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
    from .folder.publish import publish

    def announce(sizes: dict[str, int]) -> None:
        for name, size in {**sizes, "in all": sum(sizes.values())}.items():
            sys.stdout.write(f"{size:>14,}  {name}\n")
        sys.stdout.flush()

    url = publish(args.repo, args.folder, args.private, args.revision, args.dry_run, announce)
    sys.stdout.write(f"{url or 'dry run: nothing was sent'}\n")


def _add_train(subparsers: Subparsers) -> None:
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
        type=_positive,
        metavar="N",
        help="only print what was mined for so many queries of each set",
    )
    _add_recipe(tune, TuneRecipe)
    tune.set_defaults(run=_tune)
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
    from .evaluation.provenance import provenance
    from .folder.base import find_base
    from .training.data import read_guard, read_texts
    from .training.distill import Run

    recipe = _recipe(Recipe, vars(args))
    guard = read_guard(args.guard) if args.guard else frozenset()
    source = provenance(_command(), [path for path in map(Path, args.data) if path.is_file()])
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

        from .training import tune
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'lam-model[train]'") from error
    from .evaluation.provenance import provenance
    from .training.data import read_guard

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
    source = provenance(_command(), files) | {"guarded": left_out}
    run = tune.Tuning(start, data, watched, args.out, recipe, source)
    run.train()
    sys.stdout.write(f"{args.out / 'deltanet.safetensors'}: {run.best()}\n")


def _average(args: argparse.Namespace) -> None:
    from .training.weights import average

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

    from .files import read_text

    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML ({error}): write option names and values, as `epochs: 2`") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no mapping of option names to values, such as `learning_rate: 1e-4`")
    return {name.replace("-", "_"): value for name, value in content.items()}


if __name__ == "__main__":
    sys.exit(main())
