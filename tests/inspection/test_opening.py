"""Pruners are found in pipelines and searches, and what they read of X."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skprune import GTAPPruner, mlp_classifier
from skprune.inspection import SurvivorsDisplay
from skprune.inspection._opening import opened

X, y = make_classification(300, 5, n_redundant=0, class_sep=2, random_state=0)
PRUNER = GTAPPruner(
    mlp_classifier((6,), max_epochs=40, lr=0.01), n_players_to_keep=2, random_state=0
)
GOOD, BAD = ["good", "fine", "great"], ["bad", "poor", "awful"]


def texts_and_labels():
    """Texts of one telling word each among others that say nothing."""
    rng = np.random.default_rng(0)
    fillers = [f"filler{number}" for number in range(30)]
    labels = rng.integers(0, 2, 300)
    texts = [
        " ".join([rng.choice(GOOD if label else BAD), *rng.choice(fillers, 4)])
        for label in labels
    ]
    return texts, labels


@pytest.mark.parametrize(
    "front",
    [
        [CountVectorizer(binary=True)],
        [CountVectorizer(), TfidfTransformer()],
        [make_pipeline(CountVectorizer(), TfidfTransformer())],
    ],
)
def test_words_of_a_text_pipeline_come_out_as_words(front):
    texts, labels = texts_and_labels()
    pruner = clone(PRUNER).set_params(estimator__max_epochs=60)
    pipeline = make_pipeline(*front, pruner).fit(texts, labels)
    display = SurvivorsDisplay.from_estimator(
        pipeline, texts, n_drivers=3, effect="present"
    )
    assert set(display.drivers.ravel()) <= set(GOOD + BAD)
    sides = np.where(np.isin(display.drivers, GOOD), 1, -1)
    speaks_for = np.sign(display.strengths) * sides
    assert (speaks_for == speaks_for[:, :1]).all()


def test_columns_of_a_table_come_out_by_name():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": rng.normal(40, 10, 300),
            "noise": rng.normal(size=300),
            "town": rng.choice(["Bonn", "Pisa", "Oslo"], 300),
        }
    )
    labels = (frame["age"] > 40) ^ (frame["town"] == "Oslo")
    front = ColumnTransformer(
        [
            ("number", StandardScaler(), ["age", "noise"]),
            ("category", OneHotEncoder(), ["town"]),
        ],
        verbose_feature_names_out=False,
    )
    pipeline = make_pipeline(front, PRUNER).fit(frame, labels)
    display = SurvivorsDisplay.from_estimator(pipeline, frame, n_drivers=5)
    names = {"age", "noise", "town_Bonn", "town_Oslo", "town_Pisa"}
    assert set(display.drivers.ravel()) == names


def test_names_pass_through_nested_pipelines():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    inner = make_pipeline(StandardScaler(), PRUNER)
    pipeline = make_pipeline(StandardScaler(), inner).fit(frame, y)
    display = SurvivorsDisplay.from_estimator(pipeline, frame)
    assert set(display.drivers.ravel()) == set("abcde")
    np.testing.assert_allclose(
        opened(pipeline, frame).X, inner[0].transform(pipeline[0].transform(frame))
    )


def test_a_step_without_names_gives_default_ones():
    pipeline = make_pipeline(FunctionTransformer(np.tanh), PRUNER).fit(X, y)
    display = SurvivorsDisplay.from_estimator(pipeline, X)
    assert set(display.drivers.ravel()) == {f"x{place}" for place in range(5)}
    display = SurvivorsDisplay.from_estimator(pipeline, X, feature_names=list("abcde"))
    assert set(display.drivers.ravel()) == set("abcde")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda pipeline: GridSearchCV(
            pipeline, {"gtappruner__n_players_to_keep": [2, 3]}, cv=2
        ),
        FrozenEstimator,
        lambda pipeline: TunedThresholdClassifierCV(pipeline, cv=2),
        lambda pipeline: make_pipeline("passthrough", pipeline),
        lambda pipeline: make_pipeline(*[step for _, step in pipeline.steps]),
    ],
)
def test_what_is_around_a_pruner_is_opened(wrap):
    pipeline = make_pipeline(StandardScaler(), PRUNER).fit(X, y)
    wrapped = wrap(pipeline).fit(X, y)
    found = opened(wrapped, X)
    assert isinstance(found.estimator, GTAPPruner)
    np.testing.assert_allclose(found.X, StandardScaler().fit_transform(X))
    display = SurvivorsDisplay.from_estimator(wrapped, X)
    assert sorted(display.names) == sorted(found.estimator.players_.names)


def test_a_pruner_may_stand_in_front_of_others():
    pipeline = make_pipeline(StandardScaler(), PRUNER, LogisticRegression()).fit(X, y)
    found = opened(pipeline, X)
    assert found.estimator is pipeline[1]
    np.testing.assert_allclose(found.X, pipeline[0].transform(X))


def test_a_search_that_was_not_refitted_has_no_pruner():
    search = GridSearchCV(PRUNER, {"n_players_to_keep": [2]}, cv=2, refit=False)
    with pytest.raises(TypeError, match=r"refitted\s+search.*GridSearchCV"):
        SurvivorsDisplay.from_estimator(search.fit(X, y), X)


def test_without_samples_nothing_is_transformed():
    pipeline = make_pipeline(StandardScaler(), PRUNER).fit(X, y)
    display = SurvivorsDisplay.from_estimator(pipeline)
    assert display.drivers.shape == (2, 0)


def test_features_that_a_network_selected_go_by_their_names():
    def importance(pruner):
        return np.abs(next(pruner.module_.parameters()).detach().numpy()).sum(axis=0)

    selector = RFE(PRUNER, n_features_to_select=3, importance_getter=importance)
    pipeline = make_pipeline(StandardScaler(), selector).fit(X, y)
    found = opened(pipeline, X)
    assert found.estimator is selector.estimator_
    np.testing.assert_allclose(found.X, pipeline.transform(X))
    display = SurvivorsDisplay.from_estimator(pipeline, X)
    names = set(pipeline.get_feature_names_out())
    assert set(display.drivers.ravel()) - {None} == names


def test_the_template_of_an_ensemble_is_none_of_its_networks():
    ensemble = BaggingClassifier(clone(PRUNER).fit(X, y), 2).fit(X, y)
    with pytest.raises(TypeError, match="got BaggingClassifier"):
        SurvivorsDisplay.from_estimator(ensemble, X)
