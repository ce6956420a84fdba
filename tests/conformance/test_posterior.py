"""Hierarchical posteriors of 120 subjects against NONMEM, Stan and Pumas.

Each parameter is held against the engine with the largest bulk ESS for it of those with R-hat below
1.02: the means agree within three combined Monte Carlo errors, or a tenth of a posterior standard
deviation, whichever is larger.
"""

import arviz as az
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import popk
from popk.inference.convergence import population_draws
from tests.conftest import CONFORMANCE

FOLDER = CONFORMANCE / "posterior"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason="the other engines' answers are not beside the project"
    ),
]


def two_compartments(trial):
    """Model 01: two compartments, infusions."""
    priors = {"CL": 4.0, "VC": 70.0, "Q": 4.0, "VP": 50.0}
    p = popk.individual(trial, **typical(priors), omega=0.4, lkj=2.0)
    C = popk.two_compartment(trial, CL=p.CL, V1=p.VC, Q=p.Q, V2=p.VP)
    popk.observe(trial, C, popk.lognormal_error(0.5))


def one_compartment(trial):
    """Model 02: one compartment, first-order absorption."""
    p = popk.individual(trial, **typical({"CL": 4.0, "VC": 70.0, "KA": 1.0}), omega=0.4, lkj=2.0)
    C = popk.one_compartment(trial, CL=p.CL, V=p.VC, KA=p.KA)
    popk.observe(trial, C, popk.lognormal_error(0.5))


def typical(locations):
    return {
        n: numpyro.sample(f"{n}_pop", dist.LogNormal(np.log(x), 1.0)) for n, x in locations.items()
    }


def data(number):
    frame = pd.read_csv(FOLDER / f"{number}_data.csv", na_values=".")
    dose = frame["EVID"] == 1
    frame = frame.rename(columns={"BLOQ": "BLQ"}).drop(columns="DVLN")
    frame.loc[dose, ["BLQ", "LLOQ", "DV"]] = [0, np.nan, np.nan]
    frame.loc[frame["BLQ"] == 1, "DV"] = np.nan
    frame["MDV"] = dose.astype(int)
    units = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
    return popk.read_nonmem(frame, units=units, covariates=[])


def published(number):
    """Return the best engine's mean, sd and MCSE of each parameter."""
    tables = []
    for engine in ("nonmem", "stan", "pumas"):
        table = pd.read_csv(FOLDER / f"{number}_{engine}.csv")
        if engine == "nonmem":  # a variance
            sigma = table["parameters"] == "σ"
            root = np.sqrt(table.loc[sigma, "mean"])
            table.loc[sigma, ["std", "mcse"]] = table.loc[sigma, ["std", "mcse"]].div(
                2 * root, axis=0
            )
            table.loc[sigma, "mean"] = root
        tables.append(table[table["rhat"] < 1.02])
    every = pd.concat(tables).sort_values("ess_bulk")
    return every.drop_duplicates("parameters", keep="last").set_index("parameters")


@pytest.mark.parametrize(
    ("number", "model"), [("01", two_compartments), ("02", one_compartment)], ids=["01", "02"]
)
def test_means_are_those_of_the_best_engine(number, model):
    posterior = popk.fit(model, data(number), seed=1, progress=False)
    draws = population_draws(posterior)
    assert popk.convergence(posterior).rhat < 1.02
    ess = {n: float(az.ess(x, method="bulk")) for n, x in draws.items()}
    wall = posterior.attrs["wall_time_s"]
    print(f"\n{number}: {wall:.1f} s, ESS/s least {min(ess.values()) / wall:.1f}, "
          f"mean {np.mean(list(ess.values())) / wall:.1f}")  # fmt: skip
    for name, best in published(number).iterrows():
        ours = {"σ": "sigma_log"}.get(name) or (
            f"omega_{name[1:]}" if name.startswith("ω") else f"{name[2:]}_pop"
        )
        x = draws[ours]
        mcse = np.hypot(float(az.mcse(x, method="mean")), best["mcse"])
        away = abs(x.mean() - best["mean"])
        print(f"  {ours}: {x.mean():.4g}, published {best['mean']:.4g}, {away / mcse:.1f} MCSE, "
              f"{away / best['std']:.3f} sd")  # fmt: skip
        assert away <= max(3 * mcse, 0.1 * best["std"]), name
