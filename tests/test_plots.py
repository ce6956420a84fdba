"""Figures show the numbers they were given, with units, and leave nothing open behind them."""

import io
import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

import popk
from popk.plots.picture import BLUE, CHAINS, number
from tests.diagnostics.test_vpc import NOMINAL, trial_at
from tests.predictions import predictions_of

LEVELS = np.random.default_rng(0).lognormal(1.0, 0.4, (5, len(NOMINAL)))


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    assert plt.get_fignums() == []


@pytest.fixture(scope="module")
def same(theophylline_model, theophylline_posterior, theophylline):
    return popk.predict(
        theophylline_model, theophylline_posterior, theophylline, seed=1, draws=64
    )  # fmt: skip


@pytest.fixture(scope="module")
def new(theophylline_model, theophylline_posterior, theophylline):
    return popk.predict(
        theophylline_model, theophylline_posterior, theophylline, seed=1, draws=224,
        new_subjects=True,
    )  # fmt: skip


@pytest.fixture
def trial() -> popk.Trial:
    return trial_at(np.array(NOMINAL), LEVELS)


@pytest.fixture
def by_hand(trial):
    ipred = np.random.default_rng(1).lognormal(1.0, 0.2, (40, LEVELS.size))
    return predictions_of(trial, 1.2 * ipred, ipred=ipred, pred=0.8 * ipred, new_subjects=False)


def outline(band: Any) -> np.ndarray:
    """Return the corners of a band, [corner, 2]."""
    return np.asarray(band.get_paths()[0].vertices)


def points(ax: Any) -> np.ndarray:
    """Return what is drawn as points, [point, 2]."""
    return np.concatenate(
        [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    )


def shown(figure: Figure) -> list:
    return [ax for ax in figure.axes if ax.get_visible()]


def texts_overlap(figure: Any) -> list[tuple[str, str]]:
    """Return pairs of texts that lie on one another."""
    FigureCanvasAgg(figure).draw()
    boxes = []
    for ax in shown(figure):
        ticks = [t.label1 for axis in (ax.xaxis, ax.yaxis) for t in axis._update_ticks()]
        texts = [ax._left_title, ax.xaxis.label, ax.yaxis.label, *ticks, *ax.texts]
        boxes += [(t.get_text(), t.get_window_extent()) for t in texts
                  if t.get_text() and t.get_visible()]  # fmt: skip
    for legend in figure.legends:
        boxes += [(t.get_text(), t.get_window_extent()) for t in legend.get_texts()]
    for text in (figure._supxlabel, figure._supylabel):
        boxes += [(text.get_text(), text.get_window_extent())] if text else []
    return [
        (a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2)
        if one.padded(-1).overlaps(two.padded(-1))
    ]  # fmt: skip


# Individual fits


def test_individual_fits_show_each_subject_with_levels_median_and_bands(by_hand, trial):
    figure = popk.plots.individual_fits(by_hand, trial, interval=0.8)
    assert len(shown(figure)) == 5
    ipred = by_hand["posterior_predictive"]["IPRED"].values
    for i, ax in enumerate(shown(figure)):
        own = slice(6 * i, 6 * i + 6)
        assert ax.get_title(loc="left") == f"ID {i + 1}"
        np.testing.assert_allclose(points(ax), np.column_stack([NOMINAL, LEVELS[i]]))
        pred, middle = (line.get_ydata() for line in ax.lines)
        np.testing.assert_allclose(middle, np.median(ipred[:, own], axis=0))
        np.testing.assert_allclose(pred, np.median(0.8 * ipred[:, own], axis=0))
        wide, narrow = (outline(c) for c in ax.collections if isinstance(c, PolyCollection))
        low, high = np.quantile(ipred[:, own], [0.1, 0.9], axis=0)
        assert narrow[:, 1].min() == pytest.approx(low.min())
        assert narrow[:, 1].max() == pytest.approx(high.max())
        assert wide[:, 1].max() == pytest.approx(1.2 * high.max())


def test_individual_fits_name_their_axes_with_units(by_hand, trial):
    figure = popk.plots.individual_fits(by_hand, trial)
    assert figure.get_supxlabel() == "Time (h)"
    assert figure.get_supylabel() == "Concentration (mg/L)"


def test_a_level_below_the_limit_stands_at_its_limit():
    below = (LEVELS < 2).astype(int)
    trial = trial_at(np.array(NOMINAL), LEVELS, BLQ=below, LLOQ=np.full(LEVELS.shape, 2.0))
    figure = popk.plots.individual_fits(
        predictions_of(trial, np.ones((20, LEVELS.size)), new_subjects=False), trial
    )
    for i, ax in enumerate(shown(figure)):
        drawn = points(ax)
        expected = np.where(below[i] == 1, 2.0, LEVELS[i])
        order = np.argsort(drawn[:, 0])
        np.testing.assert_allclose(drawn[order], np.column_stack([NOMINAL, expected]))


def test_a_new_occasion_breaks_the_curve():
    times = np.array([1.0, 2.0, 3.0, 1.5, 2.5, 3.5])
    frame = trial_at(np.array(NOMINAL), LEVELS[:1]).to_dataframe()
    frame.loc[frame["EVID"] == 0, "TIME"] = times
    again = frame.iloc[:1].assign(TIME=0.0, EVID=4)
    frame = pd.concat([frame.iloc[:4], again, frame.iloc[4:]], ignore_index=True)
    frame.attrs = {"units": {"TIME": "h", "AMT": "mg", "DV": "mg/L"}}
    trial = popk.read_nonmem(frame)
    simulated = predictions_of(trial, np.ones((20, 6)), new_subjects=False)
    (ax,) = shown(popk.plots.individual_fits(simulated, trial))
    assert [line.get_xdata().tolist() for line in ax.lines[1::2]] == [[1, 2, 3], [1.5, 2.5, 3.5]]


def test_59_subjects_are_legible(phenobarbital):
    count = len(phenobarbital.observations.value)
    levels = np.random.default_rng(2).lognormal(3.0, 0.2, (20, count))
    simulated = predictions_of(phenobarbital, levels, ipred=levels, new_subjects=False)
    figure = popk.plots.individual_fits(simulated, phenobarbital)
    assert len(shown(figure)) == 59
    assert texts_overlap(figure) == []


def test_people_without_predictions_are_refused(by_hand, trial, new, theophylline):
    with pytest.raises(popk.ModelError, match="no individual prediction of ID 6, 7, 8, 9, 10;"):
        popk.plots.individual_fits(by_hand, theophylline)
    with pytest.raises(popk.ModelError, match="with new_subjects=False"):
        popk.plots.individual_fits(new, theophylline)


# Goodness of fit


@pytest.mark.parametrize("log", [False, True])
def test_observed_levels_stand_against_predictions(by_hand, trial, log):
    figure = popk.plots.observed_predicted(by_hand, trial, log=log)
    ipred = np.median(by_hand["posterior_predictive"]["IPRED"], axis=0)
    for ax, expected in zip(shown(figure), (0.8 * ipred, ipred), strict=True):
        np.testing.assert_allclose(points(ax), np.column_stack([expected, LEVELS.ravel()]))
        identity = ax.lines[0]
        np.testing.assert_allclose(identity.get_xdata(), identity.get_ydata())
        assert ax.get_xscale() == ax.get_yscale() == ("log" if log else "linear")
    left, right = shown(figure)
    assert left.get_xlabel() == "Population prediction PRED (mg/L)"
    assert right.get_xlabel() == "Individual prediction IPRED (mg/L)"
    assert left.get_ylabel() == "Observed concentration (mg/L)"


def test_residuals_stand_against_time_and_ipred(same, theophylline, theophylline_posterior):
    from popk.diagnostics.residuals import residuals

    data = residuals(same, theophylline_posterior, theophylline)
    figure = popk.plots.residuals(same, theophylline_posterior, theophylline)
    left, right, size = shown(figure)
    np.testing.assert_allclose(points(left), np.column_stack([data["TIME"], data["IWRES"]]))
    np.testing.assert_allclose(points(right), np.column_stack([data["IPRED"], data["IWRES"]]))
    assert left.get_ylabel() == "IWRES (sd)"
    assert left.get_ylim()[0] == -left.get_ylim()[1]
    np.testing.assert_allclose(points(size), np.column_stack([data["IPRED"], abs(data["IWRES"])]))
    assert size.get_ylabel() == "|IWRES| (sd)"


# Visual predictive check


@pytest.mark.parametrize("log", [False, True])
def test_a_vpc_draws_the_numbers_of_its_dataset(new, theophylline, log):
    check = popk.vpc(new, theophylline, bins=[0.1, 1.5, 6, 30])  # no level of 0
    (ax,) = shown(popk.plots.vpc(check, log=log))
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["observed median"].get_ydata(), check["observed"][1])
    np.testing.assert_allclose(lines["observed 5th and 95th"].get_ydata(), check["observed"][0])
    np.testing.assert_allclose(lines["observed median"].get_xdata(), check["center"])
    bands = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert len(bands) == 3
    middle = outline(bands[-1])[:, 1]
    assert middle.max() == pytest.approx(float(check["upper"][1].max()))
    assert middle.min() == pytest.approx(float(check["lower"][1].min()))
    assert ax.get_yscale() == ("log" if log else "linear")


def test_a_vpc_names_its_axes_and_says_that_it_is_corrected(new, theophylline):
    (plain,) = shown(popk.plots.vpc(popk.vpc(new, theophylline)))
    check = popk.vpc(new, theophylline, prediction_corrected=True)
    (corrected,) = shown(popk.plots.vpc(check))
    assert plain.get_xlabel() == "Time (h)"
    assert plain.get_ylabel() == "Concentration (mg/L)"
    assert corrected.get_ylabel() == "Prediction-corrected concentration (mg/L)"


def test_a_vpc_of_one_percentile_is_a_vpc(new, theophylline):
    (ax,) = shown(popk.plots.vpc(popk.vpc(new, theophylline, percentiles=(90,))))
    assert "observed 90th" in ax.get_legend_handles_labels()[1]


# Chains


def test_a_trace_shows_every_draw_of_every_chain(theophylline_posterior):
    figure = popk.plots.trace(theophylline_posterior)
    table = popk.summary(theophylline_posterior)
    assert [ax.get_title(loc="left") for ax in shown(figure)] == list(table.index)
    first = shown(figure)[0]
    draws = theophylline_posterior["posterior"]["CL_pop"].values
    for chain, line in enumerate(first.lines[:2]):
        np.testing.assert_allclose(line.get_ydata(), draws[chain])
        assert line.get_color() == CHAINS[chain]


def test_a_forest_shows_medians_and_intervals(theophylline_posterior):
    figure = popk.plots.forest(theophylline_posterior, interval=0.9)
    table = popk.summary(theophylline_posterior)
    names = [t.get_text() for ax in shown(figure) for t in ax.get_yticklabels()]
    assert sorted(names) == sorted(table.index)
    omegas = next(ax for ax in shown(figure) if "standard deviation" in ax.get_xlabel())
    for i, name in enumerate(t.get_text() for t in omegas.get_yticklabels()):
        row = table.loc[name]
        ends = [line.get_xdata() for line in omegas.lines
                if line.get_color() == BLUE and line.get_ydata()[0] == i]  # fmt: skip
        wide = max(ends, key=np.ptp)
        np.testing.assert_allclose(wide, [row["lower"], row["upper"]], rtol=1e-6)
        assert number(row["median"]) in [t.get_text().split(" ")[0] for t in omegas.texts]


# All of them


def every_figure(same, new, posterior, trial):
    yield popk.plots.individual_fits(same, trial)
    yield popk.plots.individual_fits(same, trial, log=True)
    yield popk.plots.observed_predicted(same, trial)
    yield popk.plots.observed_predicted(same, trial, log=True)
    yield popk.plots.residuals(same, posterior, trial)
    yield popk.plots.vpc(popk.vpc(new, trial))
    yield popk.plots.vpc(popk.vpc(new, trial), log=True)
    yield popk.plots.vpc(popk.vpc(new, trial, smooth=0.4))
    yield popk.plots.coverage(popk.pit(new, trial))
    yield popk.plots.npde(popk.npde(new, trial))
    effects = popk.random_effects(posterior, trial)
    yield popk.plots.eta_distributions(effects)
    yield popk.plots.eta_correlation(effects)
    yield popk.plots.eta_covariates(effects)
    yield popk.plots.trace(posterior)
    yield popk.plots.forest(posterior)


def test_no_text_lies_on_another(same, new, theophylline_posterior, theophylline):
    for figure in every_figure(same, new, theophylline_posterior, theophylline):
        assert texts_overlap(figure) == []


def test_figures_are_matplotlib_s_and_are_saved_in_any_format(same, theophylline):
    figure = popk.plots.observed_predicted(same, theophylline)
    assert isinstance(figure, Figure)
    for name, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=name)
        assert buffer.getvalue().startswith(start)


def test_a_notebook_shows_a_figure_without_magic(same, theophylline):
    figure: Any = popk.plots.observed_predicted(same, theophylline)
    assert figure._repr_png_().startswith(b"\x89PNG")


# Kaplan and Meier's curve


@pytest.fixture(scope="module")
def events() -> Any:
    """Four subjects, two with an event, one censored before; half of the simulated ones have one."""
    frame = pd.DataFrame({"ID": range(4), "TIME": [4.0, 6.0, 8.0, 10.0], "DV": [1, 0, 1, 0]})
    observed = popk.read_nonmem(frame, units={"TIME": "day", "AMT": "mg", "DV": "1"})
    followed = popk.follow_up(observed, np.arange(1.0, 11.0))
    drawn = np.zeros((20, len(followed.observations.value)))
    drawn[::2, 4] = 1.0
    tree = predictions_of(followed, drawn)
    tree.attrs["endpoints"] = '{"": {"name": "events", "kinds": [[0, 0]]}}'
    return popk.kaplan_meier(tree, observed)


def test_a_kaplan_meier_plot_shows_both_curves_their_limits_and_who_is_at_risk(events):
    figure = popk.plots.kaplan_meier(events)
    (ax,) = shown(figure)
    middle, observed, low, high, censored = ax.lines
    np.testing.assert_array_equal(middle.get_ydata(), events["predicted"].sel(percentile=50))
    np.testing.assert_array_equal(observed.get_ydata(), [1.0, 0.75, 0.75, 0.375, 0.375])
    assert observed.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(low.get_ydata(), events["lower"])
    np.testing.assert_array_equal(high.get_ydata(), events["upper"])
    np.testing.assert_array_equal(censored.get_xdata(), [6.0, 10.0])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [
        "0\n4", "2\n4", "4\n4", "6\n3", "8\n2", "10\n1",
    ]  # fmt: skip
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Time (day)", "Subjects without an event")
    assert texts_overlap(figure) == []


def test_a_calibration_plot_shows_ranks_on_their_band_and_those_outside():
    even, low = np.arange(60) * 20 // 60, np.arange(60) * 10 // 60
    calibrated = xr.Dataset(
        {
            "rank": (("replicate", "parameter"), np.stack([even, low], 1).astype(float)),
            "p_value": ("parameter", [0.9, 0.0001]),
        },
        coords={"parameter": ["CL_pop", "V_pop"]},
        attrs={"ranks": 19},
    )
    figure = popk.plots.calibration(calibrated)
    first, second = shown(figure)
    assert (first.get_title("left"), second.get_title("left")) == (
        "CL_pop   p = 0.90", "V_pop   p < 0.001"
    )  # fmt: skip
    # All of the low ranks lie at or below 9: half a share above a uniform distribution there.
    place, difference = second.lines[1].get_data()
    assert np.asarray(place)[10] == pytest.approx(0.5)
    assert np.asarray(difference)[10] == pytest.approx(0.5)
    assert np.abs(first.lines[1].get_ydata()).max() < 0.01
    assert len(first.lines[2].get_xdata()) == 0
    assert len(second.lines[2].get_xdata()) > 10
    assert texts_overlap(figure) == []
    with pytest.raises(ValueError, match="probability is 95"):
        popk.plots.calibration(calibrated, probability=95)


# Diagnostics


def test_a_vpc_of_censored_levels_has_a_panel_of_the_part_below_the_limit():
    below = (LEVELS < 2).astype(int)
    trial = trial_at(np.array(NOMINAL), LEVELS, BLQ=below, LLOQ=np.full(LEVELS.shape, 2.0))
    drawn = np.random.default_rng(3).lognormal(1.0, 0.4, (40, LEVELS.size))
    check = popk.vpc(predictions_of(trial, drawn), trial, blq="censor")
    figure = popk.plots.vpc(check)
    upper, lower = shown(figure)
    np.testing.assert_allclose(lower.lines[-1].get_ydata(), check["below_observed"])
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("Concentration (mg/L)", "Part below\nLLOQ")
    assert lower.get_xlabel() == "Time (h)"
    assert texts_overlap(figure) == []


def test_a_stratified_vpc_has_a_panel_a_stratum():
    frame = trial_at(np.array(NOMINAL), LEVELS).to_dataframe()
    frame["ARM"] = frame["ID"].astype(int)
    units = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "ARM": "1"}
    trial = popk.read_nonmem(frame, units=units, covariates=("ARM",))
    drawn = np.random.default_rng(3).lognormal(1.0, 0.4, (40, LEVELS.size))
    check = popk.vpc(predictions_of(trial, drawn), trial, stratify="ARM", bins=2)
    figure = popk.plots.vpc(check)
    assert [ax.get_title(loc="left") for ax in shown(figure)] == [f"ARM {i}" for i in range(1, 6)]
    assert texts_overlap(figure) == []


def test_categories_have_a_panel_each():
    check = xr.Dataset(
        {n: (("category", "bin"), np.full((2, 3), v)) for n, v in
         {"observed": 0.5, "median": 0.4, "lower": 0.2, "upper": 0.6}.items()},
        coords={"category": ["0", "1 or more"], "center": ("bin", [1.0, 2, 3], {"units": "h"}),
                "left": ("bin", [0.5, 1.5, 2.5]), "right": ("bin", [1.5, 2.5, 3.5])},
        attrs={"interval": 0.9},
    )  # fmt: skip
    figure = popk.plots.vpc_categories(check)
    assert [ax.get_title(loc="left") for ax in shown(figure)] == ["DV 0", "DV 1 or more"]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("Time (h)", "Part of outcomes")
    assert texts_overlap(figure) == []


def test_residuals_stand_against_time_and_pred():
    random = np.random.default_rng(4)
    data = xr.Dataset(
        {"CWRES": ("observation", random.normal(size=30)),
         "PRED": ("observation", random.uniform(1, 9, 30), {"units": "mg/L"})},
        coords={"TIME": ("observation", random.uniform(0, 24, 30), {"units": "h"})},
    )  # fmt: skip
    figure = popk.plots.cwres(data)
    left, right = shown(figure)
    np.testing.assert_allclose(points(left), np.column_stack([data["TIME"], data["CWRES"]]))
    np.testing.assert_allclose(points(right), np.column_stack([data["PRED"], data["CWRES"]]))
    assert right.get_xlabel() == "Population prediction PRED (mg/L)"
    assert texts_overlap(figure) == []


def test_influence_marks_who_moves_a_parameter_and_whose_weights_cannot_tell():
    shift = np.zeros((20, 2))
    shift[4, 0], shift[7, 1] = 1.5, -0.8
    influence = xr.Dataset(
        {"shift": (("subject", "parameter"), shift), "pareto_k": ("subject", np.eye(20)[4])},
        coords={"subject": [f"S{i}" for i in range(20)], "parameter": ["CL_pop", "V_pop"]},
        attrs={"good_k": 0.7},
    )
    figure = popk.plots.subject_influence(influence)
    first, second = shown(figure)
    assert "S4" in [t.get_text() for t in first.texts]
    assert "S7" in [t.get_text() for t in second.texts]
    assert first.collections[-1].get_offsets().tolist() == [[4.0, 1.5]]


def test_priors_and_posteriors_have_a_panel_a_parameter():
    random = np.random.default_rng(5)
    trees = [
        xr.DataTree.from_dict({group: xr.Dataset({
            "CL_pop": (("chain", "draw"), random.lognormal(0, s, (1, 400))),
            "omega_CL": (("chain", "draw"), s * np.abs(random.normal(size=(1, 400)))),
        })})
        for group, s in (("prior", 0.5), ("posterior", 0.1))
    ]  # fmt: skip
    figure = popk.plots.prior_posterior(*trees)
    assert [ax.get_title(loc="left") for ax in shown(figure)] == ["CL_pop", "omega_CL"]
    for ax in shown(figure):
        at, density = ax.lines[1].get_data()
        assert np.trapezoid(density, at) == pytest.approx(1, abs=0.05)
    assert texts_overlap(figure) == []


@pytest.mark.filterwarnings("ignore:.*count twice:popk.patients.doubts.TwinWarning")
def test_a_twin_shows_its_levels_doses_bands_and_target(
    theophylline_model, theophylline_posterior, theophylline
):
    person = popk.Twin(theophylline_model, theophylline_posterior, theophylline["3"])
    figure = popk.plots.twin(person, until=30, target=(5, 10))
    ax = figure.axes[0]
    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in ax.lines}
    told = theophylline["3"].to_dataframe()
    told = told[(told["EVID"] == 0) & (told["MDV"] == 0)]
    np.testing.assert_allclose(lines["measured"], told[["TIME", "DV"]])
    np.testing.assert_allclose(lines["dose"][:, 0], [0.0])
    times, median = lines["median"].T
    np.testing.assert_allclose(median, person.forecast(times)["IPRED"].median("sample"), rtol=1e-9)
    bands = [x for x in ax.collections if isinstance(x, PolyCollection)]
    assert {x.get_label() for x in bands} == {"level, 90% interval", "concentration, 90% interval"}
    assert ax.get_xlabel() == "Time (h)"
    assert "mg/L" in ax.get_ylabel()
    with pytest.raises(ValueError, match="interval is 2 and until"):
        popk.plots.twin(person, interval=2)
