"""What follows from a run folder: ``popk report|compare|predict|twin infer``."""

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from popk.cli.options import (
    NOT_CONVERGED,
    Columns,
    Covariates,
    RunFolder,
    Units,
    interruptible,
    rounded,
    trial_from,
    write_report,
)


def report(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="By default report.html in the run; its suffix says how."),
    ] = None,
    *,
    format: Annotated[
        str, typer.Option("--format", "-f", help="Some of html,pdf,docx,csv (a zip of all tables).")
    ] = "",
    without: Annotated[
        str, typer.Option(help="Sections to leave out, such as sensitivity,prediction.")
    ] = "",
    external: Annotated[
        Path | None, typer.Option(help="Other subjects, to predict without knowing them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the predictions.")] = 1,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not say which section is made.")
    ] = False,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Write the report of a run: a page, PDF, a document, tables.

    Example: popk report runs/theophylline --format html,pdf,docx,csv
    """
    from popk.reports.report import suffixes
    from popk.runs import open_run

    opened = open_run(run)
    asked = [f.strip() for f in format.split(",") if f.strip()]
    first = suffixes(asked)[0] if asked else ".html"
    path = out or run / f"report{first}"
    others = trial_from(external, unit, column, covariates) if external else None
    write_report(
        opened.model, opened.posterior, opened.trial, path, formats=asked, external=others, seed=seed,
        without=[w.strip() for w in without.split(",") if w.strip()], progress=not quiet,
    )  # fmt: skip
    for written in dict.fromkeys([path, *(path.with_suffix(s) for s in suffixes(asked))]):
        typer.echo(written)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of the same levels.")],
    *,
    refit: Annotated[
        bool, typer.Option(help="Fit again without each subject whose Pareto k is too high.")
    ] = False,
    draws: Annotated[int, typer.Option(help="Posterior draws to use.", min=100)] = 2000,
    seed: Annotated[int, typer.Option()] = 1,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Also write a report of all of them: a .html, .pdf, .docx or .zip file."),
    ] = None,
) -> None:
    """Compare the models of runs by how well they predict subjects left out, the best first.

    Example: popk compare runs/one runs/two --report compare.html
    """
    from popk.diagnostics.comparison import compare as compared
    from popk.inference.compilation import keep_compiled
    from popk.runs import open_run

    keep_compiled()
    opened = {str(path): open_run(path) for path in runs}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        table = compared(opened, refit=refit, draws=draws, seed=seed)
    typer.echo(rounded(table).to_string())
    for message in dict.fromkeys(str(one.message) for one in said):
        typer.echo(message, err=True)
    if report:
        from popk.reports.compared import comparison
        from popk.reports.report import write

        with interruptible():
            typer.echo(write(report, lambda say: comparison(opened, table, say), progress=True))
    if not all(table["converged"]):
        raise typer.Exit(NOT_CONVERGED)


def predict(
    run: RunFolder,
    data: Annotated[
        Path | None, typer.Argument(help="Other records; by default the run's own.")
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A CSV; by default it is printed.")
    ] = None,
    new_subjects: Annotated[
        bool, typer.Option(help="Predict new people, not those of the fit.")
    ] = False,
    interval: Annotated[
        float, typer.Option(help="Of the prediction interval.", min=0.01, max=0.999)
    ] = 0.9,
    seed: Annotated[int, typer.Option()] = 1,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Predict the levels of a trial: medians and intervals of PRED, IPRED and DV at each record.

    Example: popk predict runs/theophylline --new-subjects --out predictions.csv
    """
    from popk.inference.compilation import keep_compiled
    from popk.runs import open_run
    from popk.simulation import predict as simulate

    keep_compiled()
    opened = open_run(run)
    trial = opened.trial if data is None else trial_from(data, unit, column, covariates)
    simulated = simulate(
        opened.model, opened.posterior, trial, seed=seed, new_subjects=new_subjects
    )
    levels = simulated["posterior_predictive"].dataset
    low = (1 - interval) / 2
    table = (
        levels[["ID", "TIME"]]
        .to_dataframe()[["ID", "TIME"]]
        .assign(DV_OBSERVED=simulated["observed_data"]["DV"].values)
    )
    for name in ("PRED", "IPRED", "DV"):
        for label, q in (("lower", low), ("median", 0.5), ("upper", 1 - low)):
            table[f"{name}_{label}"] = levels[name].quantile(q, "sample").values
    if out is None:
        typer.echo(table.to_csv(index=False, float_format="%.6g", na_rep="."), nl=False)
    else:
        table.to_csv(out, index=False, float_format="%.6g", na_rep=".")
        typer.echo(out)


def twin(
    run: RunFolder,
    patient: Annotated[Path, typer.Argument(help="The records of one patient so far.")],
    *,
    times: Annotated[str, typer.Option(help="FROM:TO:STEP, or times separated by commas.")],
    id: Annotated[
        str | None, typer.Option(help="Which patient, where the file has several.")
    ] = None,
    interval: Annotated[float, typer.Option(help="Of the forecast.", min=0.01, max=0.999)] = 0.9,
    seed: Annotated[int, typer.Option()] = 1,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Infer one patient's parameters from their records, and forecast their levels.

    Example: popk twin infer runs/theophylline patient.csv --times 0:24:2
    """
    from popk.patients.twin import Twin
    from popk.runs import open_run

    opened = open_run(run)
    if not patient.with_suffix(".toml").is_file():  # nothing beside it: as in the trial of the fit
        known = opened.trial.host
        unit = [f"{name}={text}" for name, text in known.units.items()] + (unit or [])
        covariates = ",".join(known.covariates) if covariates is None else covariates
    trial = trial_from(patient, unit, column, covariates)
    if id is not None:
        if id not in trial.ids:
            raise ValueError(f"{patient} has no ID {id}; it has {', '.join(trial.ids)}")
        trial = trial[id]
    person = Twin(opened.model, opened.posterior, trial, seed=seed)
    typer.echo(person)
    print_forecast(person, times_of(times), interval)


def print_forecast(
    person: Any, times: list[float], interval: float, seed: int = 2
) -> dict[str, Any]:
    """Print the forecast of a twin, and return its times, and quantiles of IPRED and DV."""
    low = (1 - interval) / 2
    forecast = person.forecast(times, seed=seed)
    quantiles = forecast.quantile([low, 0.5, 1 - low], "sample")
    unit_of = person.patient.units
    typer.echo(f"\nForecast [{unit_of['DV']}], median and {100 * interval:g}% interval")
    typer.echo(
        f"{'TIME [' + unit_of['TIME'] + ']':>12} {'concentration':>26} {'measured level':>26}"
    )
    for i, time in enumerate(forecast["time"].values):
        cells = [
            f"{m:.4g} ({a:.4g} to {b:.4g})"
            for a, m, b in (quantiles[name].values[:, i] for name in ("IPRED", "DV"))
        ]
        typer.echo(f"{time:>12g} {cells[0]:>26} {cells[1]:>26}")
    names = ("lower", "median", "upper")
    return {"times": times} | {
        n: dict(zip(names, quantiles[n].values.tolist(), strict=True)) for n in ("IPRED", "DV")
    }


def times_of(text: str) -> list[float]:
    """Return the times of FROM:TO:STEP (both ends included) or of a list."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        begin, end, step = (float(part) for part in text.split(":"))
        if not (step > 0 and end >= begin):
            raise ValueError
        return [begin + i * step for i in range(int((end - begin) / step + 1e-9) + 1)]
    except ValueError:
        raise ValueError(f"--times {text!r}: write FROM:TO:STEP such as 0:24:2, or 1,2,4") from None
