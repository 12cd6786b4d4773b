"""The model folder, written: from a base and DeltaNet weights, or of what a trainer saved.

A plain sentence-transformers folder, in the form that releases from 5.2 on read, with the code files that
`trust_remote_code=True` needs and a manifest of every file's sha256.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import save_file

from ..files import is_free, replacing, write_json
from .base import find_part, sha256
from .manifest import MANIFEST, NO_LIMIT, Embed, model_config, read_json, write_manifest
from .tensors import WEIGHTS, Tensors, join, made_of, read_config, read_model

PACKAGED_WEIGHTS = Path(__file__).parents[1] / "weights" / "deltanet.safetensors"
CODE_FOLDER = Path(__file__).parents[1] / "model"
CODE = (
    "configuration_lam.py",
    "modeling_lam.py",
    "batching.py",
    "dense.py",
    "directions.py",
    "delta_rule.py",
    "delta_rule_cpu.py",
    "delta_net_cpu.py",
)
_AUTO_MAP = {"AutoConfig": "configuration_lam.LamConfig", "AutoModel": "modeling_lam.LamModel"}
_MODULES = ("Transformer", "Pooling", "Normalize")  # what a base may consist of
_TOKENIZER_FILES = ("special_tokens_map.json", "vocab.txt")


def build(out: Path, embed: Embed, weights: Path = PACKAGED_WEIGHTS, base: Path | None = None) -> Path:
    """Join a base and DeltaNet weights into a complete model folder.

    Args:
        out: the folder to write; it must not exist, or be empty.
        embed: computes the golden vectors of the new folder.
        weights: safetensors file of the DeltaNet layers, as `lam train distill` writes it.
        base: folder of the BERT sentence encoder that the weights were trained for; all-MiniLM-L6-v2 if None.

    Raises:
        FileExistsError: `out` has files in it.
        FileNotFoundError, ValueError: naming the file that is missing or does not fit.
        OSError: `out` cannot be written, as on a full disk.
    """
    if not is_free(out):
        raise FileExistsError(f"{out} is there already: name a new folder, or remove it")
    base = base or find_part()
    tensors, config = join(base, weights), read_config(base)
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as beside:
        beside.mkdir()
        _write_tensors(tensors, beside / WEIGHTS, out)
        _write_config(config, beside)
        _write_code(beside)
        _write_tokenizer(base, beside)
        _write_modules(base, beside)
        files = [p.relative_to(beside).as_posix() for p in beside.rglob("*") if p.is_file()]
        write_manifest(beside, files, embed, **made_of(base, weights))
    return out


def adopt(folder: Path, embed: Embed) -> None:
    """Make a whole model folder of one that sentence-transformers has saved, as after training.

    What it lacks is written: code files, manifest and golden vectors. Graphs of the weights before are not taken over.

    Raises:
        FileNotFoundError, ValueError: it is no LAM, or naming the file and what is wrong with it.
    """
    config = model_config(folder)
    read_model(folder, config)
    _write_code(folder)
    write_json(folder / "config.json", config | {"auto_map": _AUTO_MAP})
    tokenizer = read_json(folder / "tokenizer.json")
    write_json(folder / "tokenizer.json", tokenizer | {"truncation": None, "padding": None})
    parts = [module["path"] for module in read_json(folder / "modules.json") if module["path"]]
    files = [*folder.glob("*.json"), *folder.glob("*.txt"), *map(folder.joinpath, CODE), folder / WEIGHTS]
    files += [path for part in parts for path in (folder / part).glob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files if path.name != MANIFEST]
    try:
        write_manifest(folder, names, embed, deltanet_sha256=sha256(folder / WEIGHTS))
    except BaseException:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise


def _write_tensors(tensors: Tensors, path: Path, out: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk
        raise OSError(f"cannot write {out} ({error}): make room there, or name another folder") from error
    path.chmod(0o644)  # safetensors writes for the owner alone


def _write_config(config: dict[str, Any], out: Path) -> None:
    kind = {"architectures": ["LamModel"], "auto_map": _AUTO_MAP, "model_type": "lam", "dtype": "float32"}
    write_json(out / "config.json", kind | config)


def _write_code(out: Path) -> None:
    for name in CODE:
        shutil.copy(CODE_FOLDER / name, out / name)


def _write_tokenizer(base: Path, out: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copy(base / name, out / name)
    tokenizer = read_json(base / "tokenizer.json")
    write_json(out / "tokenizer.json", tokenizer | {"truncation": None, "padding": None})
    # Token types have no effect on a LAM: to make and pad them would cost a batch of one long text a tenth of its time.
    settings = {"model_max_length": NO_LIMIT, "model_input_names": ["input_ids", "attention_mask"]}
    write_json(out / "tokenizer_config.json", read_json(base / "tokenizer_config.json") | settings)


def _write_modules(base: Path, out: Path) -> None:
    modules = read_json(base / "modules.json")
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if tuple(kinds) != _MODULES[: len(kinds)] or len(kinds) < 2:
        raise ValueError(f"{base / 'modules.json'} lists {', '.join(kinds)}: a base is {', '.join(_MODULES)}")
    for module, kind in zip(modules, kinds, strict=True):
        module["type"] = f"sentence_transformers.models.{kind}"
        if kind == "Pooling":
            (out / module["path"]).mkdir()
            shutil.copy(base / module["path"] / "config.json", out / module["path"] / "config.json")
    write_json(out / "modules.json", modules)
    settings = read_json(base / "sentence_bert_config.json")
    write_json(
        out / "sentence_bert_config.json",
        {"max_seq_length": None, "do_lower_case": settings.get("do_lower_case", False)},
    )
    write_json(out / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
