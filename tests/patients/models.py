"""A drug in closed form for tests of twins: one compartment, boluses, few parameters."""

import numpy as np
import numpyro
import pandas as pd
import xarray as xr

import popk

UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "OCC": "1"}
OMEGA = popk.fixed(0.3)


def bolus(trial, error=None, **options):
    """CL and V around known typical values, which vary from draw to draw of the population."""
    CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.2))
    V = numpyro.sample("V_pop", popk.lognormal(50.0, cv=0.2))
    p = popk.individual(trial, CL=CL, V=V, omega=OMEGA, correlated=False, **options)
    error = popk.proportional_error(popk.fixed(0.1)) if error is None else error
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), error)


def population(draws=200, cv=0.05, seed=3):
    """Return draws of the population as a posterior."""
    rng = np.random.default_rng(seed)
    values = {
        "CL_pop": 5.0 * np.exp(cv * rng.standard_normal((1, draws))),
        "V_pop": 50.0 * np.exp(cv * rng.standard_normal((1, draws))),
    }
    data = {n: (("chain", "draw"), x) for n, x in values.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data)})


def records(times, levels, dose=500.0, id=1, **columns):
    """Return the trial of one person: a bolus at 0, and levels."""
    n = len(times)
    frame = pd.DataFrame(
        {
            "ID": id,
            "TIME": [0.0, *times],
            "EVID": [1] + [0] * n,
            "AMT": [dose] + [0.0] * n,
            "DV": [np.nan, *levels],
            **columns,
        }
    )
    covariates = [c for c in columns if c == "OCC"]
    units = {n: u for n, u in UNITS.items() if n != "OCC" or covariates}
    return popk.read_nonmem(frame, units=units, covariates=covariates)
