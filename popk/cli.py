"""Who asks from the shell: ``popk check|fit|report|compare|predict|twin|doctor``.

Exit codes: 0 done, 2 an input that cannot be used (one clear sentence), 3 a fit that did not converge.
"""

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

# Heavy rooms are imported by the command that needs them, so that --help answers at once.

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Bayesian population pharmacokinetics: from a trial's records to a posterior, a report and twins.",
)  # fmt: skip

NOT_CONVERGED = 3

Units = Annotated[
    list[str] | None,
    typer.Option(
        "--unit", "-u", help="The unit of a column, such as DV=mg/L; else from DATA's .toml."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", "-c", help="The name of a standard column in the file, such as DV=CONC."
    ),
]
Covariates = Annotated[
    str | None,
    typer.Option(
        "--covariates", help="Covariate columns, separated by commas; else from DATA's .toml."
    ),
]
Data = Annotated[Path, typer.Argument(help="A NONMEM-layout table.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder that popk fit made.")]


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text!r}: write NAME=VALUE, such as {option} DV=mg/L")
        pairs[name] = value
    return pairs


def _trial(data: Path, units: Any, columns: Any, covariates: str | None) -> Any:
    from popk.trial import read_nonmem

    return read_nonmem(
        data,
        units=_pairs(units, "--unit"),
        columns=_pairs(columns, "--column"),
        covariates=None if covariates is None else [c for c in covariates.split(",") if c],
    )


@app.command()
def check(
    data: Data,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Also check a model on it.")
    ] = None,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Check a data file, and a model on it, and say what is in them.

    Example: popk check data/theophylline.csv --model models/theophylline.py
    """
    trial = _trial(data, unit, column, covariates)
    typer.echo(trial)
    if model is None:
        return
    from popk.model.sites import describe
    from popk.runs import load_model

    function = load_model(model)
    sites = describe(function, trial)
    typer.echo(f"Model {function.__name__}")
    for kind in ("population", "individual", "deterministic", "level"):
        names = sites.named(kind, *(["latent"] if kind == "individual" else []))
        typer.echo(f"  {kind}: {', '.join(names)}")


@app.command()
def fit(
    model: Annotated[Path, typer.Argument(help="A Python file with one model function.")],
    data: Data,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder to make.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same draws.")] = 1,
    method: Annotated[
        str, typer.Option(help="nuts; laplace, around the mode, in seconds; or variational.")
    ] = "nuts",
    chains: Annotated[int | None, typer.Option(help="Of nuts (4).", min=1)] = None,
    warmup: Annotated[int | None, typer.Option(help="Of nuts (1000).", min=1)] = None,
    draws: Annotated[int | None, typer.Option(help="Of each chain (2000).", min=1)] = None,
    centering: Annotated[
        float | None, typer.Option(help="Of nuts: 0 not centred, 1 centred (0.5).", min=0, max=1)
    ] = None,
    target_accept: Annotated[
        float | None,
        typer.Option(help="Of nuts: higher is slower and safer (0.95).", min=0.5, max=0.999),
    ] = None,
    population_draws: Annotated[
        int | None, typer.Option(help="Of laplace, variational (2000, 4000).", min=1)
    ] = None,
    individual_draws: Annotated[
        int | None, typer.Option(help="Of these two: of each subject's random effects.", min=2)
    ] = None,
    family: Annotated[str | None, typer.Option(help="Of variational: flow, mean-field.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of variational (10000).", min=1)] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run folder.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html as well.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Fit a model to a trial and make a run folder with a report.

    Example: popk fit models/theophylline.py data/theophylline.csv --out runs/theophylline --seed 1
    """
    from popk.runs import load_model, staged_run, write_run

    trial = _trial(data, unit, column, covariates)
    function = load_model(model)
    with staged_run(out, overwrite=overwrite) as folder:
        from popk.inference.convergence import convergence
        from popk.inference.fit import fit as sample

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)  # said below, and in the report
            posterior = sample(
                function,
                trial,
                seed=seed,
                method=method,
                chains=chains,
                warmup=warmup,
                draws=draws,
                centering=centering,
                target_accept=target_accept,
                population_draws=population_draws,
                individual_draws=individual_draws,
                family=family,
                steps=steps,
                progress=not quiet,
            )
        verdict = convergence(posterior)
        about = {
            "command": shlex.join(["popk", *sys.argv[1:]]),
            "convergence": {**_known(verdict._asdict()), "converged": verdict.converged},
        }
        write_run(folder, function, posterior, trial, about)
        if report:
            _report(function, posterior, trial, folder / "report.html")
    _print_fit(posterior, verdict, out)
    if not verdict.converged:
        raise typer.Exit(NOT_CONVERGED)


def _report(model: Any, posterior: Any, trial: Any, path: Path) -> None:
    from popk.inference.compilation import keep_compiled
    from popk.reports.page import report

    keep_compiled()
    report(model, posterior, trial, path)


def _print_fit(posterior: Any, verdict: Any, out: Path) -> None:
    from popk.diagnostics.summary import summary

    typer.echo(_rounded(summary(posterior)).to_string())
    typer.echo(f"\n{out}: {', '.join(sorted(p.name for p in out.iterdir()))}")
    typer.echo(f"fitted in {posterior.attrs['wall_time_s']:.1f} s")
    if verdict.converged and verdict.pareto_k is not None:
        typer.echo(
            f"weights can be trusted: Pareto k {verdict.pareto_k:.2f}, effective sample size "
            f"{verdict.ess_bulk:.0f}"
        )
    elif verdict.converged:
        typer.echo(
            f"converged: R-hat at most {verdict.rhat:.3f}, bulk ESS at least "
            f"{verdict.ess_bulk:.0f}, no divergence"
        )
    else:
        typer.echo("NOT CONVERGED: do not use this posterior yet", err=True)
        for problem in verdict.problems():
            typer.echo(f"  {problem}", err=True)


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts without those that are no number: JSON has none."""
    return {name: None if value != value else value for name, value in facts.items()}


def _rounded(table: Any) -> Any:
    return table.map(
        lambda x: f"{x:.4g}" if isinstance(x, float) and x == x else "" if x != x else x
    )


@app.command()
def report(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="By default report.html in the run.")
    ] = None,
) -> None:
    """Write the HTML report of a run.

    Example: popk report runs/theophylline --out theophylline.html
    """
    from popk.runs import open_run

    opened = open_run(run)
    path = out or run / "report.html"
    _report(opened.model, opened.posterior, opened.trial, path)
    typer.echo(path)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of the same levels.")],
    *,
    refit: Annotated[
        bool, typer.Option(help="Fit again without each subject whose Pareto k is too high.")
    ] = False,
    draws: Annotated[int, typer.Option(help="Posterior draws to use.", min=100)] = 2000,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Compare the models of runs by how well they predict subjects left out, the best first.

    Example: popk compare runs/one runs/two
    """
    from popk.diagnostics.comparison import compare as compared
    from popk.inference.compilation import keep_compiled
    from popk.runs import open_run

    keep_compiled()
    opened = {str(path): open_run(path) for path in runs}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        table = compared(opened, refit=refit, draws=draws, seed=seed)
    typer.echo(_rounded(table).to_string())
    for message in dict.fromkeys(str(one.message) for one in said):
        typer.echo(message, err=True)
    if not all(table["converged"]):
        raise typer.Exit(NOT_CONVERGED)


@app.command()
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
    trial = opened.trial if data is None else _trial(data, unit, column, covariates)
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


@app.command()
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

    Example: popk twin runs/theophylline patient.csv --times 0:24:2
    """
    from popk.runs import open_run
    from popk.twins import Twin

    opened = open_run(run)
    if not patient.with_suffix(".toml").is_file():  # nothing beside it: as in the trial of the fit
        known = opened.trial.host
        unit = [f"{name}={text}" for name, text in known.units.items()] + (unit or [])
        covariates = ",".join(known.covariates) if covariates is None else covariates
    trial = _trial(patient, unit, column, covariates)
    if id is not None:
        if id not in trial.ids:
            raise ValueError(f"{patient} has no ID {id}; it has {', '.join(trial.ids)}")
        trial = trial[id]
    person = Twin(opened.model, opened.posterior, trial, seed=seed)
    typer.echo(person)
    low = (1 - interval) / 2
    forecast = person.forecast(_times(times))
    quantiles = forecast.quantile([low, 0.5, 1 - low], "sample")
    unit_of = trial.units
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


def _times(text: str) -> list[float]:
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


@app.command()
def doctor() -> None:
    """Say which versions, devices, precision and cache popk runs with.

    Example: popk doctor
    """
    import platform
    from importlib.metadata import version

    import jax

    from popk.inference.compilation import cache_folder
    from popk.inference.draws import VERSIONS

    typer.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in (*VERSIONS, "pandas", "equinox", "pymc"):
        typer.echo(f"{name} {version(name)}")
    devices = ", ".join(f"{d.platform} ({d.device_kind})" for d in jax.devices())
    typer.echo(f"devices: {devices}; {os.cpu_count()} processors")
    wide = jax.config.read("jax_enable_x64")
    typer.echo(
        f"precision: {'float64' if wide else 'float32 (JAX_ENABLE_X64 is off: do not fit with it)'}"
    )
    folder = cache_folder()
    kept = list(folder.iterdir()) if folder.is_dir() else []
    size = sum(file.stat().st_size for file in kept if file.is_file()) / 1e6
    writable = os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK)
    typer.echo(
        f"compiled programs: {folder}, {len(kept)} files, {size:.1f} MB"
        f"{'' if writable else ' (not writable: every start compiles anew)'}"
    )


def main() -> None:
    """Run the command line; turn what users can mend into one sentence and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        ours = type(error).__module__.startswith("popk.")
        mendable = ours or type(error) is ValueError or isinstance(error, OSError)
        if not mendable:
            raise
        typer.echo(f"popk: {error}", err=True)
        raise SystemExit(2) from None
