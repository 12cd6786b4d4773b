"""What passages in JavaScript are compared with: a document in passages, its title, and torch's vectors.

`python tests/others/passages.py MODEL_FOLDER PASSAGES.json`
"""

from __future__ import annotations

import sys
from pathlib import Path

from lam_export.check import texts

import lam_model
from lam_model.files import write_json

TITLE = "Coffee and pain"


def main(folder: str, out: str) -> None:
    model = lam_model.load(folder, device="cpu")
    article = texts()[-1]
    passages = [article[start:end] for start, end in model.encode_passages(article, size=40).offsets[:12]]
    passages += ["", article[:4000]]  # without a word, and longer than a block
    (found,) = model.encode_passages([passages], title=[TITLE])
    write_json(
        Path(out),
        {"title": TITLE, "passages": passages, "vector": found.vector.tolist(), "vectors": found.vectors.tolist()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
