"""Vectors in a folder of parquet files, one for each chunk of the input: what is there is not encoded again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..files import replacing, write_json
from .documents import Columns, read
from .outputs import Types, table, types_of
from .parquet import pyarrow_and_parquet
from .skipped import SkippedRows
from .vectors import Encoding, Texts, in_texts

DONE = "_SUCCESS"  # as others call the file that says that all is there; no reader takes it for data
SKIPPED = "_skipped.jsonl"
_MEND = "name another folder, or remove this one"
_DIGEST = b"lam_digest"  # under which a shard has that of what it was made of
_NAME = re.compile(r"part-(\d{5,})\.parquet")


class Shard(NamedTuple):
    """A file that is to be written.

    Args:
        digest: of its texts and the encoding.
        types: of what is kept.
    """

    path: Path
    texts: Texts
    digest: str
    types: Types


class There(NamedTuple):
    """So many texts whose vectors are there, and whether they were there before."""

    texts: int
    before: bool


@dataclass(frozen=True)
class Shards:
    """What files make in a folder: a shard that is still to be written, or is there, for each chunk of their texts.

    It can be pickled, and be gone through again; the shards are always the same ones.

    Args:
        folder: as checked by `check_folder`.
        paths, columns: as for `read`.
        skip: whether bad rows are left out, and listed in the folder.
        key: of the encoding.
    """

    folder: Path
    paths: Sequence[str]
    columns: Columns
    skip: bool
    key: str

    def __iter__(self) -> Iterator[Shard | There]:
        """Yields each in its turn.

        Raises:
            ValueError: a shard is there that was made of other texts or by another encoding; there are no texts.
            OSError, ImportError: as `read`.
        """
        with SkippedRows(self.folder / SKIPPED) if self.skip else nullcontext() as skipped:
            documents = read(*self.paths, columns=self.columns, skipped=skipped)
            number, types = -1, None
            for number, texts in enumerate(in_texts(documents, self.columns.keep)):
                if types is None:
                    types = types_of(texts.kept)
                yield self._shard(number, texts, types)
        for name in sorted(one.name for one in self.folder.iterdir()):
            if (found := _NAME.fullmatch(name)) and int(found[1]) > number:
                raise ValueError(f"{self.folder / name} is of texts that are not among these: {_MEND}")

    def _shard(self, number: int, texts: Texts, types: Types) -> Shard | There:
        path = self.folder / f"part-{number:05}.parquet"
        digest = hashlib.sha256(repr((self.key, *texts)).encode("utf-8", "surrogatepass")).hexdigest()
        if not path.exists():
            return Shard(path, texts, digest, types)
        if (pyarrow_and_parquet()[1].read_metadata(path).metadata or {}).get(_DIGEST) != digest.encode():
            raise ValueError(f"{path} was made of other texts, by another model or with other options: {_MEND}")
        return There(len(texts.ids), before=True)


@dataclass(frozen=True)
class ShardWriter:
    """Encodes the texts of a shard and writes it, whole or not at all."""

    encoding: Encoding

    def __call__(self, one: Shard | There) -> There:
        """What is there then.

        Raises:
            OSError: it cannot be written.
            ValueError: as `table`.
        """
        if isinstance(one, There):
            return one
        rows = table(self.encoding(one.texts), one.types).replace_schema_metadata({_DIGEST: one.digest})
        with replacing(one.path) as beside, open(beside, "wb") as file:
            pyarrow_and_parquet()[1].write_table(rows, file)
        return There(len(one.texts.ids), before=False)


def check_folder(folder: Path) -> None:
    """Refuse a place that is neither free nor a folder of shards, and make the folder.

    Raises:
        OSError: it is a file, holds something else, or cannot be made.
        ModuleNotFoundError: pyarrow is not installed.
    """
    pyarrow_and_parquet()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"cannot write {folder}: it is a file, name a folder, or a file with .parquet at its end")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"cannot write {folder}: make the folder {folder.parent} first")
    others = [one.name for one in folder.iterdir() if not _is_ours(one.name)] if folder.is_dir() else []
    if others:
        raise FileExistsError(f"cannot write {folder}: it holds other files, such as {others[0]}: name another folder")
    folder.mkdir(exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)


def finish(folder: Path, texts: int) -> None:
    """Say in the folder that all is there."""
    write_json(folder / DONE, {"texts": texts})


def _is_ours(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) or name in (DONE, SKIPPED) or name.startswith(".lam-")
