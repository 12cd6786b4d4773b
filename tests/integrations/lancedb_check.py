# /// script
# dependencies = ["lancedb==0.40.0", "lam-model[torch]"]
# ///
"""LAM in LanceDB: through sentence-transformers, with a class of LAM's without torch, and passages in a table."""

import lancedb
from documents import check_hits, documents, question
from golden import TEXTS, check
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

from lam_model.integrations.lancedb import LamEmbeddings

db = lancedb.connect("memory://")


def table_with(function):
    class Text(LanceModel):
        number: int
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = db.create_table("texts", schema=Text, mode="overwrite")
    table.add([{"number": number, "text": text} for number, text in enumerate(TEXTS)])
    return table


function = get_registry().get("sentence-transformers").create(name="my-lam")
check(table_with(function).to_arrow()["vector"].to_pylist(), 'get("sentence-transformers").create(name="my-lam")')

function = get_registry().get("lam").create(folder="my-lam")
check(table_with(function).to_arrow()["vector"].to_pylist(), 'get("lam").create(folder="my-lam")')
assert db.open_table("texts").search(TEXTS[3]).limit(1).to_list()[0]["number"] == 3  # by what the table remembers

# Passages that know their document, as in docs/integrations.md
lam = LamEmbeddings.create(folder="my-lam")
texts, titles = [d["text"] for d in documents], [d["title"] for d in documents]
passages = [
    {"document": document["id"], "text": document["text"][start:end], "vector": vector}
    for document, found in zip(documents, lam.encoder.encode_passages(texts, title=titles), strict=True)
    for (start, end), vector in zip(found.offsets, found.vectors, strict=True)
]


class Passage(LanceModel):
    document: str
    text: str = lam.SourceField()
    vector: Vector(lam.ndims()) = lam.VectorField()


table = db.create_table("passages", schema=Passage)
table.add(passages)

best = {}  # of each document its best passage
for row in table.search(question).distance_type("cosine").limit(20).to_list():
    best.setdefault(row["document"], (row["text"], 1 - row["_distance"]))
hits = [(name, *hit) for name, hit in best.items()][:2]

check_hits(hits)
