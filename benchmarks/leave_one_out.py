"""Do twins forecast newborns of whom the population knows nothing? Leave one subject out, beside MAP.

    uv run python benchmarks/leave_one_out.py               all 59 newborns of data/phenobarbital.csv

The population is fitted 59 times (`method="laplace"`), each time without one newborn, whose next level
is then forecast after none, one and two. MAP is the most likely individual estimate at the median of
the same population, which is what most dosing programs take; its interval is that of the residual error
alone, since it has no other.
"""

import argparse
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import popk

ROOT = Path(__file__).parents[1]
spec: Any = importlib.util.spec_from_file_location("model", ROOT / "models" / "phenobarbital.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
phenobarbital = module.phenobarbital
POPULATION = ("CL_pop", "V_pop", "V_low_apgar", "omega_CL", "omega_V", "corr", "sigma_proportional")


def forecasts(newborns: popk.Trial, id: str) -> list[dict[str, Any]]:
    """Return how the next level of one newborn was forecast, with none, one and two levels known."""
    known = {"units": newborns.units, "covariates": list(newborns.host.covariates)}
    posterior = popk.fit(
        phenobarbital, newborns.without([id]), seed=1, method="laplace", progress=False
    )
    draws = posterior["posterior"]
    typical = {name: draws[name].median(("chain", "draw")).values for name in POPULATION}
    records = newborns[id].to_dataframe()
    measured = np.flatnonzero(records["EVID"].eq(0) & records["MDV"].eq(0))
    rows = []
    for count, at in enumerate(measured[:3]):
        hidden = np.arange(len(records)) >= at
        MDV = np.where(hidden & records["EVID"].eq(0), 1, records["MDV"])
        trial = popk.read_nonmem(records.assign(MDV=MDV), **known)
        level, time = records["DV"][at], records["TIME"][at]
        found = popk.Twin(phenobarbital, posterior, trial).forecast([time])
        low, high = found["DV"].quantile([0.05, 0.95], "sample").values[:, 0]
        eta = popk.map_estimate(phenobarbital, trial, typical)["eta"].values
        likely = popk.predict_at(phenobarbital, trial, {**typical, "eta": eta}).values[0, at]
        half = 1.645 * float(typical["sigma_proportional"]) * likely
        rows.append({
            "ID": id, "levels known": count, "inside": low <= level <= high, "width": high - low,
            "error": float(found["IPRED"].median()) / level - 1, "MAP error": likely / level - 1,
            "MAP inside": abs(level - likely) <= half, "MAP width": 2 * half,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=None, help="only the first of them")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    newborns = popk.read_nonmem(ROOT / "data" / "phenobarbital.csv")
    rows = [row for id in newborns.ids[: asked.subjects] for row in forecasts(newborns, id)]
    found = pd.DataFrame(rows)
    for column in ("error", "MAP error"):
        found[f"median |{column}|"] = found[column].abs()
    grouped = found.groupby("levels known")
    table = grouped[["inside", "MAP inside"]].mean()
    table[["median width", "MAP median width"]] = grouped[["width", "MAP width"]].median()
    for column in ("error", "MAP error"):
        table[f"median |{column}|"] = grouped[f"median |{column}|"].median()
        table[f"rmse {column}"] = grouped[column].apply(lambda x: float(np.sqrt((x**2).mean())))
    table.insert(0, "newborns", grouped.size())
    print(table.round(3).T.to_string())


if __name__ == "__main__":
    main()
