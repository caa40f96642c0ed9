"""What README.md shows runs as it stands."""

import json
import lzma
import os
import re
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from sklearn.datasets import _twenty_newsgroups as newsgroups
from sklearn.utils import Bunch, check_random_state

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf8"), re.S | re.M)
TEXTS = [block for block in BLOCKS if "fetch_20newsgroups" in block]
OTHERS = [block for block in BLOCKS if "fetch_20newsgroups" not in block]
STRIP = {
    "headers": newsgroups.strip_newsgroup_header,
    "footers": newsgroups.strip_newsgroup_footer,
    "quotes": newsgroups.strip_newsgroup_quoting,
}


def run(block, names):
    """Execute a block of code in a namespace."""
    exec(compile(block, str(README), "exec"), names)


@pytest.fixture(scope="module")
def posts():
    """The local copy of 20 newsgroups."""
    if "SKPRUNE_DATA" not in os.environ:
        pytest.skip("needs 20 newsgroups: set SKPRUNE_DATA to the folder of the data")
    path = Path(os.environ["SKPRUNE_DATA"]) / "20news" / "20news_bydate.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def fetch(posts):
    """scikit-learn's `fetch_20newsgroups`, from the local copy."""
    names = sorted({post["label"] for post in posts})

    def fetch_20newsgroups(
        *, subset="train", categories=None, shuffle=True, random_state=42, remove=()
    ):
        chosen = [
            post
            for post in posts
            if subset in (post["split"], "all")
            and (categories is None or post["label"] in categories)
        ]
        texts = [post["text"] for post in chosen]
        for part in remove:
            texts = [STRIP[part](text) for text in texts]
        kept = [n for n in names if categories is None or n in categories]
        target = np.array([kept.index(post["label"]) for post in chosen])
        order = np.arange(len(texts))
        if shuffle:
            check_random_state(random_state).shuffle(order)
        data = [texts[row] for row in order]
        return Bunch(data=data, target=target[order], target_names=kept)

    return fetch_20newsgroups


def test_there_are_examples():
    assert len(TEXTS) == 1
    assert len(OTHERS) >= 3


@pytest.mark.slow
def test_the_examples_run_one_after_another(capsys):
    names = {}
    for block in OTHERS:
        run(block, names)
    assert "Sequential" in capsys.readouterr().out
    assert names["pruner"].score(names["X"] / 16, names["y"]) > 0.9


def test_the_local_copy_is_given_as_scikit_learn_gives_it(fetch):
    categories = ["sci.space", "alt.atheism"]
    part = fetch(categories=categories, remove=("headers", "footers", "quotes"))
    assert part.target_names == ["alt.atheism", "sci.space"]
    assert np.bincount(part.target).tolist() == [480, 593]
    assert len(part.data) == 1073
    in_full = fetch(categories=categories)
    assert all("Subject:" in text for text in in_full.data)
    lengths = [sum(map(len, bunch.data)) for bunch in (part, in_full)]
    assert lengths[0] < 0.7 * lengths[1]
    assert (np.diff(part.target) < 0).any()
    in_order = fetch(subset="test", categories=categories, shuffle=False)
    assert np.bincount(in_order.target).tolist() == [319, 394]
    assert (np.diff(in_order.target) >= 0).all()
    whole = fetch(subset="all")
    assert len(whole.data) == 18846
    assert len(whole.target_names) == 20


@pytest.mark.slow
def test_the_text_example_runs_as_it_stands(fetch, monkeypatch, capsys):
    monkeypatch.setattr(sklearn.datasets, "fetch_20newsgroups", fetch)
    names = {}
    run(TEXTS[0], names)
    pipeline, test = names["pipeline"], names["test"]
    # Logistic regression on the same words reads .83 of these later posts.
    assert pipeline.score(test.data, test.target) > 0.82
    before, after = (pipeline[-1].size_report_[time] for time in ("before", "after"))
    assert after.n_players <= 0.1 * before.n_players + 1
    out = capsys.readouterr().out
    assert str(after) in out
    assert out.count("hidden_1[") == after.n_players
