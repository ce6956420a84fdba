"""What does an effective draw cost with 100 subjects, and with 1,000? Two compartments, oral, covariates.

    uv run python benchmarks/thousand_subjects.py                   100 and 1,000 subjects, NUTS
    uv run python benchmarks/thousand_subjects.py 1000 --method laplace

The trial is simulated from the model itself: weight on all four disposition parameters, creatinine
clearance on CL, three doses and eight levels of each subject, the last two near steady state. An ESS is
the lowest bulk one of the population parameters; compilation is part of the wall time.
"""

import argparse
import time
import warnings

import numpy as np
import numpyro
import pandas as pd
import xarray as xr

import popk
from popk.inference.convergence import convergence

TRUTH = {
    "CL_pop": 5.0, "V1_pop": 40.0, "Q_pop": 8.0, "V2_pop": 90.0, "KA_pop": 1.2, "CRCL_on_CL": 0.5,
    "omega_CL": 0.3, "omega_V1": 0.25, "omega_KA": 0.4, "sigma_proportional": 0.12,
    "sigma_additive": 0.02,
}  # fmt: skip
TIMES = (0.5, 1.5, 4.0, 8.0, 12.0, 24.5, 30.0, 48.0)


def oral(trial):
    """Two compartments with first-order absorption; allometry; renal function on CL."""
    size = trial.covariate("WT") / 70
    typical = {
        name: numpyro.sample(f"{name}_pop", popk.lognormal(median, cv=0.7))
        for name, median in {"CL": 4.0, "V1": 50.0, "Q": 6.0, "V2": 70.0, "KA": 1.0}.items()
    }
    renal = numpyro.sample("CRCL_on_CL", numpyro.distributions.Normal(0, 1))
    p = popk.individual(
        trial,
        CL=typical["CL"] * size**0.75 * (trial.covariate("CRCL") / 90) ** renal,
        V1=typical["V1"] * size,
        KA=typical["KA"],
    )
    concentration = popk.two_compartment(
        trial, CL=p.CL, V1=p.V1, Q=typical["Q"] * size**0.75, V2=typical["V2"] * size, KA=p.KA
    )
    popk.observe(trial, concentration, popk.combined_error(additive=0.1, proportional=0.2))


def simulated(subjects: int) -> popk.Trial:
    """Return a trial of this many subjects, drawn from the model at `TRUTH`."""
    rng = np.random.default_rng(20)
    doses = [(t, 1, 500.0) for t in (0.0, 12.0, 24.0)]
    records = sorted([*doses, *((t, 0, 0.0) for t in TIMES)], key=lambda r: (r[0], r[1]))
    each = pd.DataFrame(records, columns=["TIME", "EVID", "AMT"])
    people = pd.DataFrame({
        "ID": np.arange(1, subjects + 1),
        "WT": np.clip(rng.normal(75, 14, subjects), 45, 130).round(1),
        "CRCL": np.clip(rng.normal(90, 25, subjects), 25, 150).round(),
    })  # fmt: skip
    frame = people.merge(each, how="cross")
    frame["MDV"] = frame["EVID"]
    frame["DV"] = np.where(frame["EVID"] == 0, 1.0, np.nan)
    known = {"units": {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg", "CRCL": "mL/min"},
             "covariates": ["WT", "CRCL"]}  # fmt: skip
    draws = {name: (("chain", "draw"), [[value]]) for name, value in TRUTH.items()}
    draws["corr"] = (("chain", "draw", "parameter", "other"), np.eye(3)[None, None])
    truth = xr.DataTree.from_dict({"posterior": xr.Dataset(draws)})
    drawn = popk.predict(oral, truth, popk.read_nonmem(frame, **known), new_subjects=True, seed=1)
    frame.loc[frame["EVID"] == 0, "DV"] = drawn["posterior_predictive"]["DV"].values.reshape(-1)
    return popk.read_nonmem(frame[frame["EVID"].eq(1) | frame["DV"].gt(0)], **known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", type=int, default=[100, 1000])
    parser.add_argument("--method", default="nuts")
    parser.add_argument("--draws", type=int, default=None)
    asked = parser.parse_args()
    options = {} if asked.draws is None else {"draws": asked.draws}
    warnings.simplefilter("ignore")
    for subjects in asked.subjects:
        trial = simulated(subjects)
        wall, cpu = time.perf_counter(), time.process_time()
        posterior = popk.fit(oral, trial, seed=1, method=asked.method, progress=False, **options)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found = convergence(posterior)
        print(f"{subjects} subjects, {asked.method}: wall {wall:.1f} s, CPU {cpu:.1f} s, {found}")
        if np.isfinite(found.ess_bulk):
            print(f"  {found.ess_bulk / wall:.2f} effective draws a second, "
                  f"{found.ess_bulk / cpu:.2f} a CPU second")  # fmt: skip
        print(popk.summary(posterior).iloc[:, :5].round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
