"""What other runtimes are compared with: texts, their number of tokens, and torch's vectors.

`python tests/others/expected.py MODEL_FOLDER EXPECTED.json`
"""

from __future__ import annotations

import sys
from pathlib import Path

from lam_export.check import texts
from tokenizers import Tokenizer

import lam_model
from lam_model.files import write_json

EACH = 5  # of the texts that `lam export verify` compares, every fifth
LONGEST = 2000  # tokens


def main(folder: str, out: str) -> None:
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    article = " ".join(2 * [texts()[-1]])
    end = tokenizer.encode(article).offsets[LONGEST - 2][1]  # [CLS] is before it, [SEP] after it
    sample = [*texts()[::EACH], article[:end]]
    tokens = [len(encoding.ids) for encoding in tokenizer.encode_batch(sample)]
    vectors = lam_model.load(folder, device="cpu").encode(sample).tolist()
    columns = zip(sample, tokens, vectors, strict=True)
    write_json(Path(out), [{"text": text, "tokens": count, "vector": vector} for text, count, vector in columns])


if __name__ == "__main__":
    main(*sys.argv[1:])
