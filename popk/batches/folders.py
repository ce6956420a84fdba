"""What becomes of a job's parts? One run folder: the fit to all subjects, and the table of the parts.

References
----------
.. [1] Efron B, Tibshirani RJ (1993). An introduction to the bootstrap. Chapman and Hall, chapter 13.
   doi:10.1201/9780429246593
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from popk.batches.jobs import Job
from popk.batches.work import Task, parts_of, plain
from popk.diagnostics.summary import summary
from popk.inference.convergence import population_draws
from popk.records.provenance import sha256
from popk.runs import open_run, staged_run

#: The probability of the percentile interval, as of popk's credible intervals.
INTERVAL = 0.9


def gathered(job: Job, out: str | Path, *, overwrite: bool) -> None:
    """Make the run folder of a job whose parts are all done, and remove these.

    A bootstrap has ``bootstrap.csv``, the posterior medians of each replicate, and ``summary.csv``, their
    standard deviation and percentile interval [1]_ beside the estimate; a cross-validation has
    ``cross_validation.csv``, the log predictive density of each subject, and its sum in ``run.json``.

    Parameters
    ----------
    job : Job
    out : path
    overwrite : bool
    """
    parts = [Task(job, str(out), part).place for part in range(1, job.parts + 1)]
    told = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
    whole = open_run(parts_of(job, out) / "fit")
    with staged_run(Path(out) / job.name, overwrite=overwrite) as folder:
        shutil.copytree(whole.path, folder, dirs_exist_ok=True)
        make = {"bootstrap": _bootstrap, "cross-validation": _cross_validation}[job.kind]
        tables, facts = make(whole.posterior, told)
        for name, table in tables.items():
            table.to_csv(folder / name)
        info = {**whole.info, "kind": job.kind, **facts, "batch": plain(job.inputs())}
        info["files"] |= {name: sha256((folder / name).read_bytes()) for name in tables}
        (folder / "run.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(parts_of(job, out), ignore_errors=True)


def _bootstrap(posterior: Any, told: list[dict[str, Any]]) -> tuple[dict[str, pd.DataFrame], dict]:
    each = pd.DataFrame([one["estimates"] for one in told], index=range(1, len(told) + 1))
    each = each.rename_axis("replicate")
    names = [n for n in summary(posterior).index if n in each]
    estimate = {n: float(np.median(x)) for n, x in population_draws(posterior).items()}
    tails = [0.5 - INTERVAL / 2, 0.5 + INTERVAL / 2]
    lower, upper = each[names].quantile(tails).to_numpy()
    table = pd.DataFrame(
        {
            "estimate": [estimate[n] for n in names], "median": each[names].median(),
            "SE": each[names].std(), "lower": lower, "upper": upper,
        }, index=names,
    ).rename_axis("parameter")  # fmt: skip
    poor = sum(not one["verdict"]["converged"] for one in told)
    facts = {"replicates": len(told), "interval": INTERVAL, "not_converged": poor}
    return {"bootstrap.csv": each, "summary.csv": table}, facts


def _cross_validation(
    posterior: Any, told: list[dict[str, Any]]
) -> tuple[dict[str, pd.DataFrame], dict]:
    rows = [(who, fold, x) for fold, one in enumerate(told, 1) for who, x in one["elpd"].items()]
    order = [str(who) for who in posterior["posterior"]["subject"].values]
    each = pd.DataFrame(rows, columns=["ID", "fold", "elpd"]).set_index("ID").loc[order]
    values = each["elpd"].to_numpy()
    facts = {
        "folds": len(told), "elpd": float(values.sum()),
        "elpd_se": float(np.sqrt(len(values)) * values.std()),
        "not_converged": sum(not one["verdict"]["converged"] for one in told),
    }  # fmt: skip
    return {"cross_validation.csv": each}, facts
