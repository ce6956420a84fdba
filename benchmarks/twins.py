"""How long does a twin take? One update, 10,000 patients, the No-U-Turn sampler beside it, a sensor.

    uv run python benchmarks/twins.py                       all of them, in this one process
    uv run python benchmarks/twins.py update stream         some of them

The population is that of every second newborn of `data/phenobarbital.csv`; the patients are the others,
or levels drawn for them. All programs are compiled by a first round that is not counted.
"""

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpyro
import pandas as pd
import xarray as xr

import popk

ROOT = Path(__file__).parents[1]
spec: Any = importlib.util.spec_from_file_location("model", ROOT / "models" / "phenobarbital.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
phenobarbital = module.phenobarbital
NEWBORNS = popk.read_nonmem(ROOT / "data" / "phenobarbital.csv")
OTHERS = list(NEWBORNS.ids[1::2])
KNOWN = {"units": NEWBORNS.units, "covariates": list(NEWBORNS.host.covariates)}
NAMES = ("CL", "V")


@cache
def population() -> xr.DataTree:
    """Return the posterior of every second newborn."""
    trial = NEWBORNS.without(OTHERS)
    return popk.fit(phenobarbital, trial, seed=1, progress=False)


def parts(id: str) -> tuple[popk.Trial, pd.DataFrame]:
    """Return a patient's doses, and the levels."""
    rows = NEWBORNS[id].to_dataframe()
    return popk.read_nonmem(rows[rows["EVID"] != 0], **KNOWN), rows[rows["EVID"] == 0]


def spread(seconds: Any) -> str:
    """Return quantiles of times, in ms."""
    middle, late = np.quantile(seconds, [0.5, 0.99]) * 1000
    return f"p50 {middle:.1f} ms, p99 {late:.1f} ms, longest {max(seconds) * 1000:.0f} ms"


def update(rounds: int = 5) -> None:
    """Update the twins of 29 newborns level by level, with 1,000 population draws."""
    took, methods = [], []
    for seed in range(rounds + 1):
        for id in OTHERS:
            doses, levels = parts(id)
            twin = popk.Twin(phenobarbital, population(), doses, seed=seed)
            for _, level in levels.iterrows():
                began = time.perf_counter()
                twin = twin.update([level.to_dict()])
                took.append(time.perf_counter() - began)
                methods.append(twin.method)
        if not seed:
            took, methods = [], []
    print(f"update: {len(took)} of {len(OTHERS)} newborns, {spread(took)}; {methods.count('laplace')} "
          f"by Laplace and importance weights")  # fmt: skip


def cohort(patients: int = 10_000) -> None:
    """Infer 10,000 patients at once, with levels drawn for the records of the 29."""
    frame = NEWBORNS.without([i for i in NEWBORNS.ids if i not in OTHERS]).to_dataframe()
    count = -(-patients // len(OTHERS))
    frame = pd.concat([frame.assign(ID=frame["ID"].astype(int) + 1000 * k) for k in range(count)])
    frame = frame[frame["ID"].isin(frame["ID"].unique()[:patients])]
    trial = popk.read_nonmem(frame, **KNOWN)
    drawn = popk.predict(phenobarbital, population(), trial, new_subjects=True, draws=1, seed=4)
    frame = trial.to_dataframe()
    frame.loc[frame["EVID"].eq(0), "DV"] = drawn["posterior_predictive"]["DV"].values[0]
    trial = popk.read_nonmem(frame[frame["EVID"].ne(0) | frame["DV"].gt(0)], **KNOWN)
    for draws, each in ((1000, 2), (250, 4)):
        options = {"population_draws": draws, "individual_draws": each}
        for timed in (False, True):
            began = time.perf_counter()
            many = popk.twins(phenobarbital, population(), trial, **options)
            took = time.perf_counter() - began
            if timed:
                poor = int((many.dataset["pareto_k"] > 0.7).sum())
                print(f"cohort: {trial.n_subjects} patients, {draws} x {each} draws, {took:.1f} s, "
                      f"{trial.n_subjects / took:.0f} a second; Pareto k above 0.7 in {poor}")  # fmt: skip


def sampler(patients: int = 10) -> None:
    """Compare with the No-U-Turn sampler per patient, of all levels: time, and quantiles in sd."""
    times: dict[str, list[float]] = {"laplace": [], "nuts": []}
    off = []
    for timed in (False, True):
        for id in OTHERS[: patients if timed else None]:
            found = {}
            for method, took in times.items():
                began = time.perf_counter()
                twin = popk.Twin(phenobarbital, population(), NEWBORNS[id], seed=3, method=method)
                if timed:
                    took.append(time.perf_counter() - began)
                found[method] = [np.log(twin.parameters[name].values.ravel()) for name in NAMES]
            for name, mine, peer in zip(NAMES, found["laplace"], found["nuts"], strict=True):
                apart = np.quantile(mine, (0.05, 0.5, 0.95)) - np.quantile(peer, (0.05, 0.5, 0.95))
                off += [(abs(x) / peer.std(), id, name) for x in apart] if timed else []
    laplace, nuts = (np.median(x) for x in times.values())
    print(f"sampler: {patients} newborns, Laplace {1000 * laplace:.0f} ms, NUTS {1000 * nuts:.0f} ms "
          f"(medians), ratio {nuts / laplace:.0f}; 5%, 50%, 95% quantiles of {', '.join(NAMES)} differ "
          f"by at most {max(off)[0]:.2f} sd ({max(off)[1:]}), median "
          f"{np.median([x[0] for x in off]):.3f} sd")  # fmt: skip


def sensor(trial):
    """One compartment, read by a sensor whose errors last for hours."""
    p = popk.individual(trial, CL=5.0, V=50.0, omega=popk.fixed(0.3), correlated=False)
    numpyro.sample("nothing", popk.lognormal(1.0, cv=0.1))
    error = popk.autocorrelated_error(popk.additive_error(popk.fixed(0.25)), popk.fixed(0.2))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), error)


def readings(count: int, every: float) -> list[dict[str, float]]:
    """Return what a sensor reads of a patient with CL 7 and V 45 after three doses."""
    rng, times = np.random.default_rng(1), every * np.arange(1, count + 1)
    since = [np.where(times > at, times - at, np.inf) for at in (0.0, 12.0, 24.0)]
    level = 500 / 45 * sum(np.exp(-7 / 45 * x) for x in since)
    rho, error = np.exp(-0.2 * every), np.empty(count)
    error[0] = rng.normal()
    for i in range(1, count):
        error[i] = rho * error[i - 1] + (1 - rho**2) ** 0.5 * rng.normal()
    return [{"TIME": float(t), "DV": float(y)}
            for t, y in zip(times, level + 0.25 * error, strict=True)]  # fmt: skip


def stream(count: int = 2000) -> None:
    """Take in 2,000 readings one minute apart, one by one, and all at once."""
    values = {"nothing": (("chain", "draw"), np.random.default_rng(1).lognormal(0, 0.1, (1, 1000)))}
    posterior = xr.DataTree.from_dict({"posterior": xr.Dataset(values)})
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 12.0, 24.0], "DV": np.nan, "AMT": 500.0, "EVID": 1,
                          "MDV": 1})  # fmt: skip
    doses = popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"})
    first = popk.Twin(sensor, posterior, doses)
    seen = readings(count, 1 / 60)
    for _ in ("compiles", "counts"):
        told, took, again = popk.Stream(first), [], 0
        for reading in seen:
            began = time.perf_counter()
            [said] = told.add(reading)
            took.append(time.perf_counter() - began)
            again += said.inferred
        began = time.perf_counter()
        whole = first.update(seen)
        batch = time.perf_counter() - began
    print(
        f"stream: {count} readings, {again} inferences, {spread(took)}; all at once {batch:.2f} s"
    )
    quarters = [f"{1000 * np.median(q):.1f}" for q in np.array_split(took, 4)]
    print(f"  median of each quarter {', '.join(quarters)} ms")
    for name in NAMES:
        mine, peer = told.twin.parameters[name].values, whole.parameters[name].values
        print(f"  {name} {mine.mean():.3f} (sd {mine.std():.3f}) one by one, {peer.mean():.3f} "
              f"(sd {peer.std():.3f}) at once")  # fmt: skip


PARTS: dict[str, Callable[[], None]] = {
    "update": update, "cohort": cohort, "sampler": sampler, "stream": stream
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    asked = parser.parse_args().parts
    if unknown := set(asked) - set(PARTS):
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    warnings.simplefilter("ignore")
    for name in asked:
        PARTS[name]()


if __name__ == "__main__":
    main()
