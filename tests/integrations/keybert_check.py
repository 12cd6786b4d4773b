# /// script
# dependencies = ["keybert==0.9.0", "lam-model[torch]"]
# ///
"""LAM in KeyBERT."""

from golden import TEXTS, check
from keybert import KeyBERT

import lam_model

keybert = KeyBERT("my-lam")

check(keybert.model.embed(TEXTS), 'KeyBERT("my-lam")')
check(KeyBERT(lam_model.load("my-lam")).model.embed(TEXTS), 'KeyBERT(lam_model.load("my-lam"))')
assert keybert.extract_keywords("Coffee beans are the roasted seeds of a plant. Coffee is drunk hot.")[0][0] == "coffee"
