"""Who stayed in a pruned network, what they are worth, and what drives them."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from skprune.inspection._opening import opened
from skprune.inspection._reading import drivers_of, survivors_of

__all__ = ["SurvivorsDisplay"]


class SurvivorsDisplay:
    """The survivors of a pruned network, with their scores and what drives them.

    Use `from_estimator`, which reads a fitted pruner, and then `print` for a text,
    `table` for arrays, `to_frame` for pandas or `plot` for a figure. Survivors come
    layer by layer, those of higher score first.

    Parameters
    ----------
    names : array-like of str of shape (n_survivors,)
        Names of the survivors in the dense network.
    layers : array-like of str of shape (n_survivors,)
        The layer of each.
    scores, standard_errors : array-like of float of shape (n_survivors,)
        What each was worth in the dense network, and how sure that is.
    ranks : array-like of int of shape (n_survivors,)
        Place by score among the scored players of the layer; 1 is the highest, 0 where
        there is no score.
    n_ranked : array-like of int of shape (n_survivors,)
        Number of these.
    drivers : array-like of str or None of shape (n_survivors, n_drivers), default=None
        Features that drive each survivor, the strongest first.
    strengths : array-like of float of shape (n_survivors, n_drivers), default=None
        How much, and in which direction; see Notes.
    effect : {"present", "standardized"}, default=None
        What the strengths are.
    score_name : str, default="score"
        What the scores are.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where `plot` drew.
    figure_ : matplotlib.figure.Figure
        Its figure.
    bars_ : list of matplotlib.container.BarContainer
        The bars, one container for each layer.

    See Also
    --------
    skprune.pruners.GTAPPruner : Its `scores_` are the power indices that are shown.

    Notes
    -----
    A driver's strength says by how many of its standard deviations the survivor's
    activation moves with the feature; the activation is what the next layer reads of
    the survivor, of a filter the sum over all positions. It is the root mean square of
    the activation's gradient over the samples in which the feature is not 0, weighted
    by its square, times the feature's size and over the activation's standard
    deviation; the sign is that of the weighted mean gradient. So it is gradient times
    input [1]_, summed up in a way in which nothing cancels. With
    ``effect="standardized"`` the size is the feature's standard deviation, and of a
    unit that is linear in the features these are the standardized regression
    coefficients; what never varies drives nothing. With ``effect="present"`` it is the
    root mean square of those values that are not 0: what the unit does in texts that
    hold a word. Like all gradients they describe the network and not the world: of two
    features that go together, either may be read. Where a network rounds what it reads,
    such as the numbers of categories among other columns, there is no gradient.

    Scores are those that the pruner recorded. In reconstruction games, the default of
    `GTAPPruner`, each layer plays its own game; compare scores within a layer. The
    equilibrium pruners record what the training loss gains if one survivor is left out
    of the pruned network, which is exact on the samples that were played and has no
    standard error: NaN.

    References
    ----------
    .. [1] A. Shrikumar, P. Greenside, A. Shcherbina and A. Kundaje, "Not just a black
       box: learning important features through propagating activation differences",
       arXiv:1605.01713.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.inspection import SurvivorsDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = mlp_classifier((16,), lr=0.01, max_epochs=20)
    >>> pruner = GTAPPruner(net, n_players_to_keep=2, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), pruner).fit(X, y)
    >>> display = SurvivorsDisplay.from_estimator(pipeline, X, n_drivers=2)
    >>> print(display)
    layer     survivor      score    error     rank  drivers (standardized)
    hidden_1  hidden_1[...]  ...  petal ... (cm) ..., ... (cm) ...
    hidden_1  hidden_1[...]  ...  petal ... (cm) ..., ... (cm) ...
    >>> list(display.table)[:5]
    ['layer', 'name', 'score', 'standard_error', 'rank']
    """

    def __init__(
        self,
        *,
        names,
        layers,
        scores,
        standard_errors,
        ranks,
        n_ranked,
        drivers=None,
        strengths=None,
        effect=None,
        score_name="score",
    ):
        self.names, self.layers = np.asarray(names), np.asarray(layers)
        self.scores = np.asarray(scores, dtype=float)
        self.standard_errors = np.asarray(standard_errors, dtype=float)
        self.ranks, self.n_ranked = np.asarray(ranks), np.asarray(n_ranked)
        nothing = (len(self.names), 0)
        self.drivers = np.asarray(
            np.empty(nothing) if drivers is None else drivers, dtype=object
        )
        self.strengths = np.asarray(
            np.empty(nothing) if strengths is None else strengths, dtype=float
        )
        self.effect, self.score_name = effect, score_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X=None,
        *,
        feature_names=None,
        n_drivers=5,
        effect="auto",
        min_samples=5,
    ):
        """Read the survivors of a fitted pruner.

        Parameters
        ----------
        estimator : estimator
            A fitted pruner; or a FrozenEstimator, Pipeline or search with one inside,
            whose steps in front of the pruner then transform X and name its features.
        X : array-like or sparse matrix of shape (n_samples, n_features), default=None
            Samples as `estimator` reads them, by which drivers are found: some hundreds
            are enough for a table, for texts take as many as there are. They need not
            be those of `fit`. A sparse X is not made dense. Without X no drivers are
            listed, for weights alone do not say how much a feature varies.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the features that the pruner reads. None takes those that the steps
            in front of it give, or those of its data frame, or else "x0", "x1" and so
            on ("x[0,3]" in an image, "token 3" where a table looks tokens up).
        n_drivers : int, default=5
            Drivers of each survivor.
        effect : {"auto", "present", "standardized"}, default="auto"
            What a strength is: see Notes of the class. "auto" is "present" where fewer
            than a twentieth of the entries of X differ from 0, as in texts, and else
            "standardized".
        min_samples : int, default=5
            Samples in which a driver is not 0, at least: what a word does in one text
            says little.

        Returns
        -------
        display : SurvivorsDisplay

        Raises
        ------
        NotFittedError
            If `estimator` is not fitted.
        TypeError
            If there is no pruner in it, or X has no rows that can be taken.
        ValueError
            If an argument does not fit the others.

        Notes
        -----
        Single weights and whole layers have scores and no activation of their own:
        their drivers are None.
        """
        _check_count("n_drivers", n_drivers)
        _check_count("min_samples", min_samples)
        if effect not in ("auto", "present", "standardized"):
            raise ValueError(
                f"effect={effect!r} must be 'auto', 'present' or 'standardized'."
            )
        if X is None and feature_names is not None:
            raise ValueError(
                "feature_names names the columns of X, and there is none; give X too."
            )
        found = opened(estimator, X)
        pruner = found.estimator
        columns = survivors_of(pruner)
        if X is not None:
            names = found.feature_names if feature_names is None else feature_names
            columns["drivers"], columns["strengths"], effect = drivers_of(
                pruner,
                found.X,
                names,
                n_drivers=n_drivers,
                effect=effect,
                min_samples=min_samples,
            )
        # Layers in forward order, in each the best first, those without score last.
        order = np.lexsort((-columns["scores"], pruner.players_.group_of))
        is_index = hasattr(pruner, "scores_")
        return cls(
            **{name: column[order] for name, column in columns.items()},
            effect=None if X is None else effect,
            score_name="score" if is_index else "leave-one-out gain",
        )

    @property
    def table(self):
        """Columns by name, one entry for each survivor.

        Returns
        -------
        table : dict of str to ndarray of shape (n_survivors,)
            "layer", "name", "score", "standard_error", "rank" (in the layer), and
            "driver_1", "strength_1", "driver_2" and so on; None and NaN where a
            survivor has no further driver.
        """
        columns = {
            "layer": self.layers,
            "name": self.names,
            "score": self.scores,
            "standard_error": self.standard_errors,
            "rank": self.ranks,
        }
        for place in range(self.drivers.shape[1]):
            columns[f"driver_{place + 1}"] = self.drivers[:, place]
            columns[f"strength_{place + 1}"] = self.strengths[:, place]
        return columns

    def to_frame(self):
        """Give `table` as a data frame.

        Returns
        -------
        frame : pandas.DataFrame
            One row for each survivor.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install pandas. Without it, `table` holds "
                "the same columns as arrays."
            ) from error
        return pandas.DataFrame(self.table)

    def plot(self, ax=None, *, n_survivors=10):
        """Draw the scores with their standard errors, and the drivers beside names.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a figure.
        n_survivors : int, default=10
            Survivors of each layer at most, those of the highest score.

        Returns
        -------
        display : SurvivorsDisplay
            Self, with `ax_`, `figure_` and `bars_`.

        Raises
        ------
        ValueError
            If `n_survivors` is no whole number of at least 1.
        ImportError
            If matplotlib is not installed.
        """
        _check_count("n_survivors", n_survivors)
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                "plot needs matplotlib: pip install skprune[plot]."
            ) from error
        by_layer = {
            layer: np.flatnonzero(self.layers == layer)[:n_survivors]
            for layer in dict.fromkeys(self.layers)
        }
        shown = np.concatenate([np.empty(0, dtype=int), *by_layer.values()])
        labels = [" ".join(filter(None, self._label(row))) for row in shown]
        if ax is None:
            # Inches: room for the bars, and for the longest label.
            width = 4 + 0.1 * max(map(len, labels), default=0)
            size = (width, 1 + 0.25 * len(shown))
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.ax_, self.figure_, self.bars_ = ax, ax.figure, []
        place_of = {survivor: place for place, survivor in enumerate(shown)}
        for layer, rows in by_layer.items():
            errors = self.standard_errors[rows]
            places = [place_of[row] for row in rows]
            errors = np.where(np.isfinite(errors), errors, np.nan)
            bars = ax.barh(places, self.scores[rows], xerr=errors, label=layer)
            self.bars_.append(bars)
        ax.set(xlabel=self.score_name, yticks=range(len(shown)), yticklabels=labels)
        ax.invert_yaxis()
        if len(by_layer) > 1:
            ax.legend()
        return self

    def __str__(self):
        """The table as text, in aligned columns."""
        drivers = f"drivers ({self.effect})" if self.effect else ""
        rows = [("layer", "survivor", self.score_name, "error", "rank", drivers)]
        for row, layer in enumerate(self.layers):
            name, drivers = self._label(row)
            rank = f"{self.ranks[row]}/{self.n_ranked[row]}" if self.ranks[row] else ""
            values = (self.scores[row], self.standard_errors[row])
            rows.append((layer, name, *map(_short, values), rank, drivers))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _label(self, row):
        """Name of a survivor, and its drivers in one line."""
        pairs = zip(self.drivers[row], self.strengths[row], strict=True)
        drivers = [f"{name} {s:+.2f}" for name, s in pairs if name is not None]
        return str(self.names[row]), ", ".join(drivers)


def _check_count(name, value):
    """Refuse what is no whole number of at least 1."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")


def _short(number):
    """A number in four significant digits, or nothing where there is none."""
    return "" if np.isnan(number) else f"{number:.4g}"
