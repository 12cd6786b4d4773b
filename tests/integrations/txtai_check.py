# /// script
# dependencies = ["txtai==9.14.0", "lam-model[torch]"]
# ///
"""LAM in txtai."""

from golden import TEXTS, check
from txtai import Embeddings

embeddings = Embeddings(path="my-lam")
embeddings.index(TEXTS)

check(embeddings.batchtransform(TEXTS), 'Embeddings(path="my-lam")')
assert embeddings.search(TEXTS[3], 1)[0][0] == 3
embeddings = Embeddings(path="my-lam", method="sentence-transformers")
check(embeddings.batchtransform(TEXTS), 'Embeddings(path="my-lam", method="sentence-transformers")')
