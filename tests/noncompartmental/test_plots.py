"""Figures of terminal slopes and exposure checks show the numbers they were given."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

import popk
from popk.plots.picture import BLUE, VERMILLION
from tests.diagnostics.test_exposures import checked, levels
from tests.noncompartmental.test_nca import below, several
from tests.test_plots import shown, texts_overlap


@pytest.fixture(scope="module")
def found(theophylline):
    return popk.nca(theophylline, route="extravascular")


def scattered(ax, label):
    """Return the points of a name, [point, 2]."""
    own = [c for c in ax.collections if isinstance(c, PathCollection) and c.get_label() == label]
    return np.concatenate([c.get_offsets() for c in own])


def test_terminal_slopes_are_drawn_through_the_points_that_made_them(found):
    figure = popk.plots.nca(found)
    ax = shown(figure)[1]
    line = next(line for line in ax.lines if line.get_label() == "terminal slope")
    two = found.sel(subject="2")
    x, y = line.get_xdata(), line.get_ydata()
    assert (x[0], x[-1]) == (float(two["slope_first"]), float(two["slope_last"]))
    assert y[-1] == pytest.approx(float(two["Clast_predicted"]))
    used = scattered(ax, "level of the terminal slope")
    assert used[:, 0].tolist() == [7.03, 9.0, 12.0, 24.3]
    assert len(scattered(ax, "level")) == 6  # the 0 before the dose has no logarithm
    assert ax.get_yscale() == "log"


def test_flagged_profiles_bear_an_asterisk_and_axes_their_units(found):
    figure = popk.plots.nca(found, log=False)
    titles = [ax.get_title(loc="left") for ax in shown(figure)]
    assert titles[:2] == ["ID 1 *", "ID 2"]
    assert shown(figure)[0].get_title(loc="right") == "t½ 14.3 h"
    assert figure.get_supylabel() == "Concentration (mg/L)"
    assert figure.get_supxlabel() == "Time since the dose (h)"


def test_a_level_below_the_limit_is_a_triangle_at_its_limit():
    (ax,) = shown(popk.plots.nca(below(8)))
    np.testing.assert_allclose(scattered(ax, "below the limit of quantification"), [[8, 1]])


def test_each_dose_has_a_panel():
    titles = [ax.get_title(loc="left").rstrip(" *") for ax in shown(popk.plots.nca(several()))]
    assert titles == ["ID 1, dose 1", "ID 1, dose 7"]


@pytest.fixture(scope="module")
def check():
    rng = np.random.default_rng(0)
    observed = levels(rng, (12,))
    observed[3] *= 4
    return checked(observed, levels(rng, (60, 12)))


def test_an_exposure_check_marks_what_lies_outside_by_form_and_color(check):
    figure = popk.plots.exposure_check(check)
    ax = shown(figure)[list(check["statistic"].values).index("Cmax")]
    outside = scattered(ax, "observed, outside")
    cmax = check["observed"].sel(statistic="Cmax").values
    assert outside[:, 0].max() == pytest.approx(cmax[3])
    one = next(c for c in ax.collections if c.get_label() == "observed, outside")
    assert to_hex(one.get_edgecolors()[0]) == VERMILLION
    assert len(one.get_paths()[0].vertices) < 8  # a diamond, no circle
    inside = scattered(ax, "observed")
    assert len(inside) + len(outside) == 12 + 2  # the median and SD of all as well
    assert ax.get_xlabel() == "Cmax (mg/L)"
    bars = next(c for c in ax.collections if str(c.get_label()).startswith("simulated, 90%"))
    assert to_hex(bars.get_color()[0]) == BLUE


def test_a_dosing_interval_that_is_not_there_is_refused(check):
    several = check.expand_dims(interval=[1], axis=-1)
    assert popk.plots.exposure_check(several)
    with pytest.raises(ValueError, match="dose_interval is 2"):
        popk.plots.exposure_check(several, dose_interval=2)


def test_no_text_lies_on_another(found, check):
    assert texts_overlap(popk.plots.nca(found)) == []
    assert texts_overlap(popk.plots.exposure_check(check)) == []
