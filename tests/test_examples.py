"""The examples run, and draw what they promise."""

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
GALLERY = sorted(path.stem for path in EXAMPLES.glob("plot_*.py"))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs an example as a script of its own, and gives its names."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    monkeypatch.chdir(tmp_path)
    # What examples share lies beside them.
    monkeypatch.syspath_prepend(EXAMPLES)
    n_threads = torch.get_num_threads()

    def execute(name, *arguments):
        path = str(EXAMPLES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        return runpy.run_path(path, run_name="__main__")

    yield execute
    pyplot.close("all")
    torch.set_num_threads(n_threads)


def check_figures():
    """Whether something was drawn."""
    from matplotlib import pyplot

    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    assert figures
    for figure in figures:
        assert figure.axes
        assert any(axes.has_data() for axes in figure.axes)


def test_there_are_examples():
    assert {"plot_gtap_digits", "plot_tabular_search"} <= set(GALLERY)


@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_the_gallery_runs_on_data_that_everybody_has(run, monkeypatch, name):
    monkeypatch.delenv("SKPRUNE_DATA", raising=False)
    run(name)
    check_figures()


@pytest.mark.slow
def test_the_quickstart_saves_a_small_network(run, monkeypatch, tmp_path, capsys):
    names = run("quickstart", "--output", str(tmp_path / "found"))
    # The saved module is of a class of the script.
    script = sys.modules["__main__"]
    monkeypatch.setattr(script, "Digits", names["Digits"], raising=False)
    module = torch.load(tmp_path / "found" / "small_network.pt", weights_only=False)
    assert module.hidden1.out_features + module.hidden2.out_features == 26
    assert (tmp_path / "found" / "compression_curve.png").stat().st_size > 10_000
    assert "who stayed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    "SKPRUNE_DATA" not in os.environ,
    reason="needs Adult: set SKPRUNE_DATA to the folder of the data",
)
def test_the_search_on_adult_ends_small_and_as_good(run):
    names = run("plot_tabular_search")
    check_figures()
    ((accuracy, auc, n_neurons, n_before, whole, whole_auc, _),) = names["rows"]
    assert n_neurons <= 0.05 * n_before
    assert accuracy > whole - 0.005
    assert auc > whole_auc - 0.005
