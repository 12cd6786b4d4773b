"""Write the code of docs/onnx.md that needs other environments to files, so that they can run it.

`python tests/others/snippets.py FOLDER`
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"
SHOW = {
    "py": "\nprint(len(vectors), 'vectors in fastembed')\n",
    "js": "console.log(vectors.dims, 'in transformers.js');\n",
}


def main(folder: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind, suffix in (("py", "py"), ("js", "mjs")):
        (code,) = re.findall(rf"^```{kind}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
        (folder / f"snippet.{suffix}").write_text(code + SHOW[kind], encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
