"""The code of the pages on other tools is that of the scripts that `make integrations` runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "integrations").glob("*_check.*")]


def lines(code: str) -> set[str]:
    return {line.strip() for line in code.splitlines()}


def snippets() -> list[str]:
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("integrations.md", "server.md")]
    return re.findall(r"^```(?:py|js)\n(.*?)^```", "\n".join(pages), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: snippet.splitlines()[0])
def test_a_snippet_is_part_of_a_script(snippet):
    missing = [lines(snippet) - lines(script) for script in SCRIPTS]
    assert set() in missing, min(missing, key=len)


def test_the_server_is_started_as_its_page_says():
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^DO_NOT_TRACK=1 (infinity_emb .*)$", page, re.MULTILINE)
    assert any(f'"{command}"' in script for script in SCRIPTS)
