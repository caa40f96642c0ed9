"""Texts with labels: from SKPRUNE_DATA, or docstrings of what is installed anyway."""

import ast
import csv
import gzip
import importlib.util
import io
import os
import re
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

PACKAGES = ("numpy", "scipy", "sklearn", "torch")


def load_texts(name):
    """Training and test texts, and their labels.

    Parameters
    ----------
    name : {"emotion", "topics", "docstrings"}
        Short texts of six emotions, financial tweets of twenty topics (both from
        SKPRUNE_DATA), or docstrings of four packages, which one has to tell.

    Returns
    -------
    texts_train, texts_test : list of str
    y_train, y_test : ndarray of str
    """
    if name == "docstrings":
        texts, labels = _docstrings()
        parts = train_test_split(texts, labels, test_size=0.25, random_state=0)
        texts_train, texts_test, y_train, y_test = parts
    else:
        load = {"emotion": _emotion, "topics": _topics}[name]
        (texts_train, y_train), (texts_test, y_test) = load(
            Path(os.environ["SKPRUNE_DATA"])
        )
    return texts_train, texts_test, np.array(y_train), np.array(y_test)


def _emotion(folder):
    """CARER: training and test texts."""
    for part in ("train", "test"):
        with gzip.open(
            folder / "emotion" / f"{part}.txt.gz", "rt", encoding="utf8"
        ) as f:
            rows = [line.rstrip("\n").rpartition(";") for line in f]
        yield [row[0] for row in rows], [row[2] for row in rows]


def _topics(folder):
    """Twitter financial news: training and validation texts, of which there are two."""
    folder = folder / "twitter_financial_news_topic"
    topics = (folder / "classes.txt").read_text().splitlines()
    for part in ("train", "valid"):
        with gzip.open(folder / f"topic_{part}.csv.gz", "rt", encoding="utf8") as f:
            rows = list(csv.DictReader(io.StringIO(f.read(), newline="")))
        yield [row["text"] for row in rows], [topics[int(row["label"])] for row in rows]


def _docstrings(n_each=300):
    """Docstrings of functions and classes, without the names of the packages."""
    texts, labels = [], []
    names = re.compile("|".join((*PACKAGES, "np")), re.IGNORECASE)
    for package in PACKAGES:
        found = []
        for folder in importlib.util.find_spec(package).submodule_search_locations:
            for file in sorted(Path(folder).rglob("*.py")):
                if "tests" not in file.parts and len(found) < n_each:
                    found += _documented(file)
        texts += [names.sub(" ", text) for text in found[:n_each]]
        labels += [package] * len(found[:n_each])
    return texts, labels


def _documented(file):
    """The docstrings of a file, of some length."""
    tree = ast.parse(file.read_text(encoding="utf8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    texts = (ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, kinds))
    return [text for text in texts if text and len(text) > 80]
