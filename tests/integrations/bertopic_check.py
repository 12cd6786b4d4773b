# /// script
# dependencies = ["bertopic==0.17.4", "lam-model[torch]"]
# ///
"""LAM in BERTopic."""

from bertopic import BERTopic
from golden import TEXTS, check

import lam_model

topics = BERTopic(embedding_model="my-lam", min_topic_size=3)
topics.fit_transform(TEXTS)

check(topics.embedding_model.embed(TEXTS), 'BERTopic(embedding_model="my-lam")')
topics = BERTopic(embedding_model=lam_model.load("my-lam")).fit(TEXTS)
check(topics.embedding_model.embed(TEXTS), 'BERTopic(embedding_model=lam_model.load("my-lam"))')
