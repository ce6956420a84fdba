"""A stream of readings: the same belief as of all at once, at the same cost for each."""

import numpy as np
import numpyro
import pandas as pd
import pytest
import xarray as xr

import popk

pytestmark = pytest.mark.filterwarnings("ignore::popk.TwinWarning")

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
SD = 0.25


def sensor(trial):
    """One compartment, read by a sensor whose errors last for hours."""
    p = popk.individual(trial, CL=5.0, V=50.0, omega=popk.fixed(0.3), correlated=False)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    error = popk.autocorrelated_error(popk.additive_error(popk.fixed(SD)), popk.fixed(0.2))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), error)


def nothing():
    values = xr.Dataset(
        {"nothing": (("chain", "draw"), np.random.default_rng(1).lognormal(0, 0.1, (1, 40)))}
    )
    return xr.DataTree.from_dict({"posterior": values})


def doses():
    frame = pd.DataFrame(
        {"ID": 1, "TIME": [0.0, 12.0, 24.0], "DV": np.nan, "AMT": 500.0, "EVID": 1, "MDV": 1}
    )
    return popk.read_nonmem(frame, units=UNITS)


def readings(count, seed=1, every=0.5):
    """Return what a sensor reads of a patient with CL 7 and V 45."""
    rng, times = np.random.default_rng(seed), every * np.arange(1, count + 1)
    since = [np.where(times > at, times - at, np.inf) for at in (0.0, 12.0, 24.0)]
    level = 500 / 45 * sum(np.exp(-7 / 45 * x) for x in since)
    rho, error = np.exp(-0.2 * every), np.empty(count)
    error[0] = rng.normal()
    for i in range(1, count):
        error[i] = rho * error[i - 1] + (1 - rho**2) ** 0.5 * rng.normal()
    return [
        {"TIME": float(t), "DV": float(y)} for t, y in zip(times, level + SD * error, strict=True)
    ]


@pytest.fixture(scope="module")
def told():
    stream = popk.Stream(popk.Twin(sensor, nothing(), doses()))
    return stream, stream.add(readings(60))


def test_a_stream_believes_what_all_readings_at_once_say(told):
    stream, _ = told
    whole = popk.Twin(sensor, nothing(), doses()).update(readings(60))
    assert stream.twin.records["TIME"].tolist() == whole.records["TIME"].tolist()
    for name in ("CL", "V"):
        mine, all_ = stream.twin.parameters[name].values, whole.parameters[name].values
        assert abs(mine.mean() - all_.mean()) < 0.15 * all_.std()
        assert mine.std() == pytest.approx(all_.std(), rel=0.1)


def test_few_readings_have_the_twin_inferred_again(told):
    _, seen = told
    assert 1 <= sum(one.inferred for one in seen) <= 12
    assert sum(one.inferred for one in seen[-30:]) <= 3  # two doses say anew what CL and V are


def test_readings_lie_where_they_were_expected(told):
    """Of 60 levels given those before, about 54 within 90%; errors given the one before are narrow."""
    _, seen = told
    inside = [one.low < one.level < one.high for one in seen]
    assert 48 <= sum(inside) <= 60
    width = np.median([one.high - one.low for one in seen[30:]])
    assert width == pytest.approx(2 * 1.645 * SD * (1 - np.exp(-0.2)) ** 0.5, rel=0.15)
    assert 0.2 < np.mean([one.surprise for one in seen]) < 0.8


def test_what_a_reading_that_is_off_says(told):
    stream, _ = told
    other = popk.Stream(stream.twin)
    [seen] = other.add({"TIME": 30.5, "DV": 60.0})
    assert seen.surprise == 0.0


def test_a_dose_changes_no_belief_of_parameters():
    stream = popk.Stream(popk.Twin(sensor, nothing(), doses()))
    stream.add(readings(3))
    before = stream.twin.parameters["CL"].values
    [seen] = stream.add({"TIME": 26.0, "AMT": 500.0, "EVID": 1, "MDV": 1, "DV": np.nan})
    assert not seen.inferred
    assert np.isnan(seen.level)
    assert np.array_equal(stream.twin.parameters["CL"].values, before)
    assert len(stream.twin.records) == 7
    assert stream.twin.forecast([26.5])["IPRED"].median() > 15


def test_a_late_reading_has_the_twin_inferred_again():
    stream = popk.Stream(popk.Twin(sensor, nothing(), doses()))
    first, second, third = readings(3)
    stream.add([first, third])
    [seen] = stream.add(second)
    assert seen.inferred
    whole = popk.Twin(sensor, nothing(), doses()).update([first, second, third])
    assert np.allclose(stream.twin.parameters["CL"].values, whole.parameters["CL"].values)


def test_a_reading_twice_is_a_duplicate():
    stream = popk.Stream(popk.Twin(sensor, nothing(), doses()))
    first, _ = readings(2)
    stream.add([first, first])
    assert len(stream.twin.records) == 4


def test_a_reading_that_is_refused_changes_nothing():
    stream = popk.Stream(popk.Twin(sensor, nothing(), doses()))
    first, second = readings(2)
    stream.add(first)
    with pytest.raises(popk.DataError, match="below 0"):
        stream.add({"TIME": 1.0, "DV": -3.0})
    stream.add(second)
    assert len(stream.twin.records) == 5


def test_what_a_reading_costs_does_not_grow():
    """The records that the next reading depends on: three doses, and the level before it."""
    stream = popk.Stream(popk.Twin(sensor, nothing(), doses()))
    stream.add(readings(20))
    assert len(stream._tail.host.frame) == 4


def test_changes_of_covariates_stay():
    """With WT 70, 70, 70, 80, 80: the first and last of each are needed, as NONMEM's rule says."""
    frame = pd.DataFrame({
        "ID": 1, "TIME": [0.0, 1, 2, 3, 4, 5], "DV": [np.nan, 9, 8, 7, 6, 5], "AMT": [100.0, 0, 0, 0, 0, 0],
        "WT": [70.0, 70, 70, 80, 80, 80], "EVID": [1, 0, 0, 0, 0, 0], "MDV": [1, 0, 0, 0, 0, 0],
    })  # fmt: skip
    trial = popk.read_nonmem(frame, units={**UNITS, "WT": "kg"}, covariates=["WT"])
    from popk.patients.stream import tail_of

    kept = tail_of(trial).host.frame
    assert kept["TIME"].tolist() == [0.0, 2.0, 3.0, 5.0]
    assert kept["EVID"].tolist() == [1, 2, 2, 0]


def test_a_mixture_has_no_stream():
    def two_kinds(trial):
        mix = popk.mixture(trial, {"slow": 0.3, "fast": 0.7})
        p = popk.individual(trial, CL={"slow": 2.0, "fast": 6.0}, classes=mix)
        popk.observe(trial, mix(slow=popk.one_compartment(trial, CL=p.slow.CL, V=20.0),
                                fast=popk.one_compartment(trial, CL=p.fast.CL, V=20.0)),
                     popk.additive_error(1.0))  # fmt: skip
        numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))

    values = {n: (("chain", "draw"), np.full((1, 20), x)) for n, x in
              {"omega_CL": 0.3, "sigma_additive": 0.5, "nothing": 1.0}.items()}  # fmt: skip
    posterior = xr.DataTree.from_dict({"posterior": xr.Dataset(values)})
    with pytest.raises(popk.ModelError, match="mixture"):
        popk.Stream(popk.Twin(two_kinds, posterior, doses()))
