"""How much does a covariate change a parameter, and exposure? Ratios to a reference subject."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import LineCollection, PathCollection

import popk
from tests.test_plots import texts_overlap

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg", "SEX": "1", "AGE": "year"}
EXPONENTS = np.linspace(0.7, 0.8, 101)
EFFECTS = np.linspace(-0.4, 0.0, 101)  # of SEX on log CL


def bolus(trial):
    """One compartment, CL by weight and sex; age does nothing."""
    CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.5))
    exponent = numpyro.sample("CL_WT", dist.Normal(0.75, 0.1))
    female = numpyro.sample("CL_SEX", dist.Normal(0, 0.5))
    size = (trial.covariate("WT") / 70) ** exponent
    p = popk.individual(trial, CL=CL * size * jnp.exp(female * trial.covariate("SEX")), V=40.0)
    numpyro.deterministic("k", p.CL / p.V)
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), popk.proportional_error(0.1))


def records(times, weights=(70.0,), **changes):
    frame = pd.DataFrame({"TIME": times, "EVID": 0, "AMT": 0.0, "DV": 1.0, "MDV": 0, "SEX": 0})
    frame.loc[0, ["EVID", "AMT", "DV", "MDV"]] = [1, 100.0, np.nan, 1]
    people = [frame.assign(ID=str(i), WT=w, AGE=40 + i) for i, w in enumerate(weights)]
    return pd.concat(people, ignore_index=True).assign(**changes)


def read(frame, levels=None):
    frame.attrs = {"levels": levels or {}}
    return popk.read_nonmem(frame, covariates=["WT", "SEX", "AGE"], units=UNITS)


@pytest.fixture(scope="module")
def trial():
    frame = records([0.0, 1.0, 6.0], weights=np.linspace(50.0, 90.0, 21))
    frame["SEX"] = (frame["ID"].astype(int) % 3 == 0).astype(int)
    return read(frame, {"SEX": {"0": "male", "1": "female"}})


@pytest.fixture(scope="module")
def posterior():
    draws = {
        "CL_pop": np.linspace(4, 6, 101), "CL_WT": EXPONENTS, "CL_SEX": EFFECTS,
        "omega_CL": np.full(101, 0.3), "omega_V": np.full(101, 0.2),
        "sigma_proportional": np.full(101, 0.1),
    }  # fmt: skip
    data = {n: (("chain", "draw"), x[None]) for n, x in draws.items()}
    data["corr"] = (
        ("chain", "draw", "parameter", "parameter2"),
        np.tile(np.eye(2), (1, 101, 1, 1)),
    )
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data)})


@pytest.fixture(scope="module")
def usual(posterior, trial):
    regimen = read(records(np.concatenate([[0.0], np.arange(0.0, 400.0, 4.0)])))
    return popk.covariate_effects(bolus, posterior, trial, exposure=regimen)


def test_the_ratio_is_that_of_the_covariate_model_in_each_draw(posterior, trial):
    found = popk.covariate_effects(
        bolus, posterior, trial, parameters=["CL", "k"],
        scenarios={"35 kg": {"WT": 35}, "a woman of 35 kg": {"WT": 35, "SEX": 1}},
    )  # fmt: skip
    np.testing.assert_allclose(found["ratio"].sel(scenario="35 kg")[0], 0.5**EXPONENTS, rtol=1e-12)
    np.testing.assert_allclose(found["ratio"][1], found["ratio"][0], rtol=1e-12)  # V is one
    assert found["median"].values[0, 0] == pytest.approx(0.594604, abs=1e-6)  # 0.5^0.75
    both = 0.5**EXPONENTS * np.exp(EFFECTS)
    np.testing.assert_allclose(found["ratio"][0, 1], both, rtol=1e-12)
    ends = [found[n].values[0, 1] for n in ("lower", "upper")]
    np.testing.assert_allclose(ends, np.quantile(both, [0.05, 0.95]), rtol=1e-12)
    assert list(found["covariate"].values) == ["WT", "WT, SEX"]
    assert found.attrs["reference"] == "WT 70 kg, SEX male"


def test_inside_is_the_probability_of_lying_in_the_zone(posterior, trial):
    asked = {"woman": {"SEX": 1}}
    found = popk.covariate_effects(bolus, posterior, trial, scenarios=asked)
    # exp(-0.4 to 0) is at least 0.8 in the draws above log 0.8 = -0.2231: 45 to 100 of 0 to 100
    assert float(found["inside"].sel(quantity="CL")[0]) == pytest.approx(56 / 101)
    assert float(found["inside"].sel(quantity="V")[0]) == 1.0
    narrow = popk.covariate_effects(bolus, posterior, trial, scenarios=asked, zone=(0.9, 1.1))
    assert float(narrow["inside"].sel(quantity="CL")[0]) == pytest.approx(27 / 101)


def test_exposure_is_dose_over_clearance_and_dose_over_volume(usual):
    clearance = usual["ratio"].sel(quantity="CL").values
    np.testing.assert_allclose(usual["ratio"].sel(quantity="Cmax"), 1.0, rtol=1e-9)
    # The logarithmic rule is exact where levels fall exponentially; 400 h leave nothing behind.
    np.testing.assert_allclose(usual["ratio"].sel(quantity="AUC"), 1 / clearance, rtol=1e-9)


def test_usual_scenarios_are_outer_percentiles_and_other_categories(usual):
    # Weights are 50, 52, ..., 90 kg; the 5th percentile is the second of 21. Age changes nothing.
    assert list(usual["scenario"].values) == ["WT 52 kg", "WT 88 kg", "SEX female"]
    assert usual.attrs["reference"] == "WT 70 kg, SEX male"


def test_the_reference_subject_can_be_another(posterior, trial):
    found = popk.covariate_effects(
        bolus, posterior, trial, reference={"WT": 35}, scenarios={"heavy": {"WT": 70}}
    )
    np.testing.assert_allclose(found["ratio"].sel(quantity="CL")[0], 2**EXPONENTS, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scenarios": {"old": {"HT": 3}}}, "old names HT, which is no covariate of the trial"),
        ({"scenarios": {"x": {"SEX": 2}}}, r"x gives SEX 2; it must be 0 \(male\), 1 \(female\)"),
        ({"scenarios": {"x": {"WT": np.nan}}}, "x gives WT nan; it must be finite"),
        ({"scenarios": {"x": {}}}, "scenario 'x' changes nothing"),
        ({"scenarios": {"x": {"WT": -1}}}, "CL of x is not positive and finite"),
        ({"reference": {"BMI": 1}}, "reference names BMI"),
        ({"parameters": ["CL_pop"]}, "CL_pop is not recorded for each subject"),
        ({"parameters": ["V"]}, r"no covariate of the trial \(WT, SEX, AGE\) changes V"),
        ({"zone": (1.2, 0.8)}, "the zone must be two rising positive numbers"),
        ({"interval": 1.0}, "interval lie between 0 and 1"),
    ],
)
def test_what_has_no_ratio_is_refused(options, says, posterior, trial):
    with pytest.raises(popk.ModelError, match=says):
        popk.covariate_effects(bolus, posterior, trial, **options)


def regimens():
    yield records([0.0, 1.0], weights=(60.0, 70.0)), "exposure has 2 subjects"
    late = records([0.0, 1.0, 24.0, 30.0])
    late.loc[2, ["EVID", "AMT", "MDV"]] = [1, 100.0, 1]
    yield late, "exposure row 2 doses without a record at its time before it"
    more = records([0.0, 1.0, 30.0]).assign(ADDL=[1, 0, 0], II=[24.0, 0, 0])
    yield more, "has further doses"
    again = records([0.0, 5.0, 0.0, 3.0])
    again.loc[2, ["EVID", "AMT", "MDV"]] = [4, 100.0, 1]
    yield again, "exposure row 2 goes back in time"


@pytest.mark.parametrize(("frame", "says"), list(regimens()))
def test_exposure_that_cannot_be_taken_is_refused(frame, says, posterior, trial):
    with pytest.raises(popk.ModelError, match=says):
        popk.covariate_effects(bolus, posterior, trial, exposure=read(frame))


def test_exposure_in_other_units_is_refused(posterior, trial):
    frame = records([0.0, 1.0])
    other = popk.read_nonmem(frame, covariates=["WT", "SEX", "AGE"], units={**UNITS, "AMT": "g"})
    with pytest.raises(popk.ModelError, match="exposure has AMT in g, the trial in mg"):
        popk.covariate_effects(bolus, posterior, trial, exposure=other)


def test_a_random_effect_of_one_s_own_has_no_typical_value(posterior, trial):
    def own(trial):
        with numpyro.plate("subject", trial.n_subjects, dim=-2):
            share = numpyro.sample("share", dist.Beta(2, 2))
        popk.observe(trial, share * jnp.ones(trial.time.shape), popk.additive_error(1))

    with pytest.raises(popk.ModelError, match="the typical value of share is not known"):
        popk.covariate_effects(own, posterior, trial, scenarios={"x": {"WT": 50}})


def by_occasion(trial):
    """CL varies between occasions, and falls with time where it is induced."""
    CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.5))
    CL = CL * (trial.covariate("WT") / 70) ** 0.75
    p = popk.individual(trial, CL=CL, correlated=False, iov={"SEX": {"CL": popk.fixed(0.2)}})
    numpyro.deterministic("CL_late", p.CL * jnp.exp(-0.01 * trial.time))
    concentration = popk.one_compartment(trial, CL=p.CL, V=40.0)
    popk.observe(trial, concentration, popk.additive_error(1.0), DVID=1)
    popk.observe(trial, 2 + concentration, popk.additive_error(1.0), output="plus", DVID=2)


def test_occasions_and_outputs_of_several_kinds_have_their_typical_values():
    kinds = records([0.0, 1.0, 6.0, 6.0, 9.0], (60.0, 80.0, 90.0)).assign(DVID=[1, 1, 1, 2, 2] * 3)
    trial = read(kinds.assign(SEX=[0, 0, 0, 1, 1] * 3))  # SEX numbers occasions here
    draws = {"CL_pop": 5.0, "omega_CL": 0.3, "sigma_additive": 1.0, "sigma_additive_plus": 1.0}
    data = xr.Dataset({n: (("chain", "draw"), [[x]]) for n, x in draws.items()})
    posterior = xr.DataTree.from_dict({"posterior": data})
    regimen = read(records([0.0, 0.0, 2.0, 4.0]).assign(DVID=[1, 1, 2, 2]))

    def effects(**options):
        return popk.covariate_effects(
            by_occasion, posterior, trial, scenarios={"35 kg": {"WT": 35}}, reference={"WT": 70},
            exposure=regimen, **options,
        )["median"].sel(scenario="35 kg")  # fmt: skip

    assert float(effects()[0]) == pytest.approx(0.5**0.75)
    at_4 = np.exp(-np.array([0.5**0.75, 1.0]) * 5 / 40 * 4)
    plus = effects(output="plus")
    assert float(plus.sel(quantity="Cmax")) == pytest.approx(1.0)
    levels = [[2 + 2.5 * x for x in (1.0, y**0.5, y)] for y in at_4]
    areas = [sum(2 * (a - b) / np.log(a / b) for a, b in pairwise(x)) for x in levels]
    assert float(plus.sel(quantity="AUC")) == pytest.approx(areas[0] / areas[1])
    with pytest.raises(popk.ModelError, match="no such output; give output= one of plus"):
        effects(output="minus")
    with pytest.raises(popk.ModelError, match="CL_late changes in time"):
        effects(parameters=["CL_late"])


# The figure


def test_a_forest_shows_ratios_zone_and_numbers(usual):
    figure = popk.plots.covariate_forest(usual)
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in panels] == ["CL", "V", "AUC", "Cmax"]
    assert [t.get_text() for t in panels[0].get_yticklabels()] == list(usual["scenario"].values)
    for ax, name in zip(panels, usual["quantity"].values, strict=True):
        own = usual.sel(quantity=name)
        (points,) = [c for c in ax.collections if isinstance(c, PathCollection)]
        np.testing.assert_allclose(points.get_offsets()[:, 0], own["median"])
        # Rows of one covariate stand together, the next a little apart.
        np.testing.assert_allclose(points.get_offsets()[:, 1], [0, 1, 2.6])
        (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
        ends = np.array([line[:, 0] for line in lines.get_segments()])
        np.testing.assert_allclose(ends, np.stack([own["lower"], own["upper"]], 1))
        (zone,) = ax.patches
        assert (zone.get_x(), zone.get_x() + zone.get_width()) == (0.8, 1.25)
    written = [t.get_text() for t in panels[0].texts]
    assert written[1] == "{:.2f} ({:.2f} to {:.2f})".format(
        *(float(usual[n][0, 0]) for n in ("median", "lower", "upper"))
    )
    assert figure.get_supxlabel() == "Ratio to the reference subject: WT 70 kg, SEX male"
    assert texts_overlap(figure) == []


def test_a_forest_of_one_panel_and_a_long_reference_is_legible(usual):
    long = usual.isel(quantity=[0]).assign_attrs(reference=", ".join(["WT 70 kg"] * 20))
    figure = popk.plots.covariate_forest(long)
    assert figure.get_supxlabel().count("\n") == 2  # lines of at most 97 letters
    assert texts_overlap(figure) == []
