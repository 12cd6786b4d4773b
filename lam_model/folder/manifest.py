"""The model folder: written from base and DeltaNet weights, and checked before it is used.

A plain sentence-transformers folder (see `_LAYOUT`), in the form that releases from 5.2 on read, with the code
files that `trust_remote_code=True` needs and a manifest of every file's sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..files import is_free, replacing, write_json
from .base import convert, find_base, sha256

if TYPE_CHECKING:
    from torch import Tensor

PACKAGED_WEIGHTS = Path(__file__).parents[1] / "weights" / "deltanet.safetensors"
_CODE_OF = Path(__file__).parents[1] / "model"  # where the code files lie
MANIFEST = "manifest.json"
ONNX = "onnx/"  # where graphs are, written and checked apart from all else
WEIGHTS = "model.safetensors"
CODE = (
    "configuration_lam.py",
    "modeling_lam.py",
    "batching.py",
    "dense.py",
    "delta_rule.py",
    "delta_rule_cpu.py",
    "delta_net_cpu.py",
)
_AUTO_MAP = {"AutoConfig": "configuration_lam.LamConfig", "AutoModel": "modeling_lam.LamModel"}
_MODULES = ("Transformer", "Pooling", "Normalize")  # what a base may consist of
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
NO_LIMIT = 10**9  # tokens: nothing is truncated; transformers would warn of a missing limit
GOLDEN_TEXTS = (
    "A gated delta rule keeps what it has read in a small matrix.",
    "naïve café — 東京 🙂 ½",
    "",
    "The cell divides, and each daughter carries a copy of the whole. " * 60,
)
_GOLDEN_TOLERANCE = 1e-4


def build(out: Path, weights: Path = PACKAGED_WEIGHTS, base: Path | None = None) -> Path:
    """Join a base and DeltaNet weights into a complete model folder.

    Args:
        out: the folder to write; it must not exist, or be empty.
        weights: safetensors file of the DeltaNet layers, as `lam train distill` writes it.
        base: folder of the BERT sentence encoder that the weights were trained for; all-MiniLM-L6-v2 if None.

    Raises:
        FileExistsError: `out` has files in it.
        FileNotFoundError, ValueError: naming the file that is missing or does not fit.
        OSError: `out` cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError

    if not is_free(out):
        raise FileExistsError(f"{out} is there already: name a new folder, or remove it")
    base = base or find_base()
    model = convert(base)
    load_trained(model, weights)
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as beside:
        beside.mkdir()
        try:
            model.save_pretrained(beside)
        except SafetensorError as error:  # a full disk
            raise OSError(f"cannot write {out} ({error}): make room there, or name another folder") from error
        _write_tokenizer(base, beside)
        _write_modules(base, beside)
        (beside / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
        files = [p.relative_to(beside).as_posix() for p in beside.rglob("*") if p.is_file()]
        _write_manifest(beside, files, base_sha256=sha256(base / WEIGHTS), deltanet_sha256=sha256(weights))
    return out


def adopt(folder: Path) -> None:
    """Make a whole model folder of one that sentence-transformers has saved, as after training.

    What it lacks is written: code files, manifest and golden vectors. Graphs of the weights before are not taken over.

    Raises:
        FileNotFoundError, ValueError: it is no LAM, or naming the file and what is wrong with it.
    """
    config = _read_config(folder)
    _read_model(folder)
    for name in CODE:
        shutil.copy(_CODE_OF / name, folder / name)
    write_json(folder / "config.json", config | {"auto_map": _AUTO_MAP})
    tokenizer = _read_json(folder / "tokenizer.json")
    write_json(folder / "tokenizer.json", tokenizer | {"truncation": None, "padding": None})
    parts = [module["path"] for module in _read_json(folder / "modules.json") if module["path"]]
    files = [*folder.glob("*.json"), *folder.glob("*.txt"), *map(folder.joinpath, CODE), folder / WEIGHTS]
    files += [path for part in parts for path in (folder / part).glob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files if path.name != MANIFEST]
    try:
        _write_manifest(folder, names, deltanet_sha256=sha256(folder / WEIGHTS))
    except BaseException:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise


def _write_manifest(folder: Path, files: Iterable[str], **made_of: str) -> None:
    manifest = {**made_of, "sha256": {name: sha256(folder / name) for name in sorted(files)}}
    write_json(folder / MANIFEST, manifest)
    golden = [
        {"text": text, "vector": [round(x, 6) for x in vector]}
        for text, vector in zip(GOLDEN_TEXTS, _vectors(folder, GOLDEN_TEXTS), strict=True)
    ]
    write_json(folder / MANIFEST, manifest | {"golden": golden})


def cached(weights: Path = PACKAGED_WEIGHTS) -> tuple[Path, dict[str, Any]]:
    """The model of some weights, built once into the user's cache folder and again if damaged; its manifest."""
    from huggingface_hub import constants

    made_of = [weights, *(_CODE_OF / name for name in CODE), Path(__file__)]
    key = hashlib.sha256("".join(map(sha256, made_of)).encode()).hexdigest()[:16]
    path = Path(constants.HF_HOME) / "lam" / key
    try:
        return path, check(path)
    except (FileNotFoundError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        try:
            return path, check(path)  # another thread or process has built it meanwhile
        except (FileNotFoundError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        # In a thread of its own, with which those of OpenMP end: a process that forks later would wait for them.
        with ThreadPoolExecutor(1) as thread, suppress(FileExistsError):  # of one that knows no lock, as an older LAM
            thread.submit(build, path, weights).result()
        return path, check(path)


def locked(path: Path) -> FileLock:
    """To be held while something in the user's cache folder is written, for all threads and processes."""
    return FileLock(path.parent.with_suffix(".lock"))


def load_trained(model: Any, weights: Path) -> None:
    """Copy trained DeltaNet weights into a converted model.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    parameters = {name: p for name, p in model.state_dict().items() if ".delta_net." in name}
    tensors = read_weights(weights, {name: tuple(p.shape) for name, p in parameters.items()})
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def read_weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read a safetensors file that must hold exactly the given tensors, floating and finite.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file, the tensor and the fault.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..model.modeling_lam import is_finite

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: fetch or build the model again")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): fetch or build the model again") from error
    faults = [f"{name} is missing" for name in shapes.keys() - tensors.keys()]
    faults += [f"{name} is not LAM's" for name in tensors.keys() - shapes.keys()]
    for name in shapes.keys() & tensors.keys():
        tensor = tensors[name]
        if tuple(tensor.shape) != shapes[name]:
            faults.append(f"{name} is {tuple(tensor.shape)}, not {shapes[name]}")
        elif not tensor.is_floating_point():
            faults.append(f"{name} is {tensor.dtype}, not floating point")
        elif not is_finite(tensor):
            faults.append(f"{name} is not finite")
    if faults:
        raise ValueError(f"{path} does not fit: {'; '.join(sorted(faults)[:3])}: fetch or build the model again")
    return tensors


def check(folder: Path) -> dict[str, Any]:
    """Check that a folder is a whole, unaltered LAM, and return its manifest.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    _read_config(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"{folder / MANIFEST} is missing: if a trainer saved this folder, make it whole with "
            f"`lam verify --adopt {folder}`; else fetch or build the model again"
        )
    return check_files(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "lam":
        raise ValueError(f"{folder} holds a {config.get('model_type')!r} model, not a LAM: name another folder")
    return config


def _read_model(folder: Path) -> dict[str, Tensor]:
    """All weights of a model folder: those that its configuration asks for, float32 and finite."""
    import torch

    from ..model.configuration_lam import LamConfig
    from ..model.modeling_lam import LamModel

    with torch.device("meta"):
        expected = LamModel(LamConfig(**_read_json(folder / "config.json"))).state_dict()
    tensors = read_weights(folder / WEIGHTS, {name: tuple(t.shape) for name, t in expected.items()})
    if wrong := [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]:
        raise ValueError(f"{folder / WEIGHTS}: {wrong[0]} is {tensors[wrong[0]].dtype}, not float32: save it so")
    return tensors


def check_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Check that files of a model folder are those of its manifest, and return it.

    Args:
        names: of files; all but the ONNX graphs if None.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    manifest = _read_json(folder / MANIFEST)
    expected = manifest["sha256"]
    for name in [name for name in expected if not name.startswith(ONNX)] if names is None else names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: fetch or build the model again")
        if sha256(folder / name) != expected.get(name):
            raise ValueError(f"{folder / name} was altered or damaged: fetch or build the model again")
    return manifest


def verify(folder: Path) -> list[str]:
    """Check everything about a model folder: hashes, keys, shapes, dtypes, finiteness, golden vectors.

    Returns:
        What was checked, a line each.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    manifest, tensors = check(folder), _read_model(folder)
    golden = manifest["golden"]
    difference = max(
        abs(a - b)
        for vector, expected in zip(_vectors(folder, [g["text"] for g in golden]), golden, strict=True)
        for a, b in zip(vector, expected["vector"], strict=True)
    )
    if not difference <= _GOLDEN_TOLERANCE:  # a NaN fails too
        raise ValueError(f"{folder}: golden vectors differ by {difference:.1e}, over {_GOLDEN_TOLERANCE}")
    return [
        f"{len(manifest['sha256'])} files have the sha256 of the manifest",
        f"{len(tensors)} tensors are there, of the right shape, float32 and finite",
        f"{len(golden)} golden vectors agree within {difference:.1e}",
    ]


def _vectors(folder: Path, texts: Sequence[str]) -> list[list[float]]:
    from ..runtime.loading import load

    vectors = load(folder, device="cpu").encode(list(texts)).tolist()
    if not all(math.isfinite(x) for vector in vectors for x in vector):
        raise ValueError(f"{folder} gives vectors that are not finite: build it again")
    return vectors


def _write_tokenizer(base: Path, out: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copy(base / name, out / name)
    tokenizer = _read_json(base / "tokenizer.json")
    tokenizer["truncation"] = tokenizer["padding"] = None
    write_json(out / "tokenizer.json", tokenizer)
    write_json(
        out / "tokenizer_config.json", _read_json(base / "tokenizer_config.json") | {"model_max_length": NO_LIMIT}
    )


def _write_modules(base: Path, out: Path) -> None:
    modules = _read_json(base / "modules.json")
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if tuple(kinds) != _MODULES[: len(kinds)] or len(kinds) < 2:
        raise ValueError(f"{base / 'modules.json'} lists {', '.join(kinds)}: a base is {', '.join(_MODULES)}")
    for module, kind in zip(modules, kinds, strict=True):
        module["type"] = f"sentence_transformers.models.{kind}"
        if kind == "Pooling":
            (out / module["path"]).mkdir()
            shutil.copy(base / module["path"] / "config.json", out / module["path"] / "config.json")
    write_json(out / "modules.json", modules)
    settings = _read_json(base / "sentence_bert_config.json")
    write_json(
        out / "sentence_bert_config.json",
        {"max_seq_length": None, "do_lower_case": settings.get("do_lower_case", False)},
    )
    write_json(out / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {path.parent} is no whole model folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): fetch or build the model again") from error
