"""20 newsgroups by date: from SKPRUNE_DATA, or by scikit-learn's downloader."""

import json
import lzma
import os
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


def load_newsgroups(n_words=30_000):
    """TF-IDF of posts as CSR matrices of float32, and labels, training and test.

    The test posts were written after the training posts. Headers, quotes and footers
    are in the texts.
    """
    texts, labels = load_posts()
    vectorizer = TfidfVectorizer(
        max_features=n_words, sublinear_tf=True, dtype=np.float32
    )
    X_train = vectorizer.fit_transform(texts["train"])
    X_test = vectorizer.transform(texts["test"])
    y_train, y_test = (np.array(labels[part], np.int64) for part in ("train", "test"))
    return X_train, y_train, X_test, y_test


def load_posts():
    """The posts themselves, and their labels: two dicts of "train" and "test"."""
    return _from_folder() if "SKPRUNE_DATA" in os.environ else _fetched()


def _from_folder():
    """Texts and labels of the stored archive."""
    file = Path(os.environ["SKPRUNE_DATA"]) / "20news" / "20news_bydate.jsonl.xz"
    texts, labels = {"train": [], "test": []}, {"train": [], "test": []}
    with lzma.open(file, "rt", encoding="utf8") as lines:
        for line in lines:
            post = json.loads(line)
            texts[post["split"]].append(post["text"])
            labels[post["split"]].append(post["target"])
    return texts, labels


def _fetched():
    """The same by scikit-learn."""
    from sklearn.datasets import fetch_20newsgroups

    parts = {part: fetch_20newsgroups(subset=part) for part in ("train", "test")}
    texts = {part: posts.data for part, posts in parts.items()}
    return texts, {part: posts.target for part, posts in parts.items()}
