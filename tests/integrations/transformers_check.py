# /// script
# dependencies = ["transformers==5.24.0", "lam-model[torch]"]
# ///
"""LAM in transformers, without sentence-transformers: hidden states, then mean pooling."""

import torch
from golden import TEXTS, check
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("my-lam")
model = AutoModel.from_pretrained("my-lam")


def encode(texts):
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state
    return normalize((states * inputs["attention_mask"][..., None]).sum(1))


check(encode(TEXTS), 'AutoModel.from_pretrained("my-lam")')
