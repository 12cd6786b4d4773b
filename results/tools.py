"""What `python tests/integrations/run.py` found, as a table."""

from __future__ import annotations

import json
from pathlib import Path

from speed import markdown

FIGURES = Path(__file__).parent / "integrations.json"


def integrations() -> str:
    """A row for each way in which a tool loads LAM."""
    lines = [["tool", "LAM is loaded by", "tested with", "largest difference, short texts", "2,000 tokens"]]
    lines.append(["---"] * len(lines[0]))
    for row in json.loads(FIGURES.read_text(encoding="utf-8"))["tools"].values():
        needs = [f"`{need}`" for need in row["requirements"] if need.startswith("lam-model")]
        for way in row["ways"]:
            differences = [f"{way[length]:.0e}" for length in ("short", "long")]
            tool = f"{row['package']} {row['version']}"
            lines.append([tool, f"`{way['way']}`", *(needs or ["the folder"]), *differences])
    return markdown(lines)
