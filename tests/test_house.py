"""The rooms of the package: imports run one way, and no file is too long to be read in one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lam_model"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
# From the lowest floor up: a room imports from those below it.
ROOMS = (
    "texts",
    "files",
    "progress",
    "startup",
    "model",
    "folder",
    "reading",
    "runtime",
    "corpus",
    "index",
    "integrations",
    "evaluation",
)
ROOMS += ("training", "commands", "cli")
KERNELS = {"delta_rule_cpu.py", "delta_net_cpu.py"}
LINES = 400


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """The modules of the package that a file imports, within functions too; not those for types alone."""
    own = module(path).split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *((node.module or "").split(".") if node.module else [])]
            for alias in node.names:
                name = ".".join([*base, alias.name])
                found.add(name if name in MODULES else ".".join(base))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found - {"lam_model"}


MODULES = {module(path) for path in FILES}
IMPORTS = {module(path): imported(path) for path in FILES}


def room(name):
    return name.split(".")[1]


def test_no_two_modules_import_each_other_by_whatever_way():
    done = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in IMPORTS.get(name, ()):
                visit(other, [*way, name])
            done.add(name)

    for name in IMPORTS:
        visit(name, [])


@pytest.mark.parametrize("name", sorted(MODULES - {"lam_model", "lam_model.registration"}))
def test_a_room_imports_from_those_below_it(name):
    for other in IMPORTS[name]:
        assert ROOMS.index(room(other)) <= ROOMS.index(room(name)), f"{name} imports {other}"


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in KERNELS], ids=lambda path: path.stem)
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


def test_folder_and_reading_need_neither_torch_nor_transformers():
    allowed = {PACKAGE / "reading" / "torch_reader.py"}
    for path in FILES:
        if (
            room(module(path) + ".") in ("folder", "reading", "corpus", "index", "integrations", "texts", "files")
            and path not in allowed
        ):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            assert not {"torch", "transformers", "sentence_transformers"} & names, path
