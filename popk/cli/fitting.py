"""From a trial's records to a run folder: ``popk check|fit``."""

import contextlib
import logging
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from popk.cli.options import (
    NOT_CONVERGED,
    Columns,
    Covariates,
    Data,
    Units,
    rounded,
    trial_from,
    write_report,
)


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
    trial = trial_from(data, unit, column, covariates)
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


def fit(
    model: Annotated[Path, typer.Argument(help="A Python file with one model function.")],
    data: Data,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder to make.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same draws.")] = 1,
    method: Annotated[
        str,
        typer.Option(help="nuts; laplace, around the mode, in seconds; variational; pymc; nutpie."),
    ] = "nuts",
    chains: Annotated[int | None, typer.Option(help="Of nuts (4).", min=1)] = None,
    warmup: Annotated[int | None, typer.Option(help="Of nuts (1000).", min=1)] = None,
    draws: Annotated[int | None, typer.Option(help="Of each chain (2000).", min=1)] = None,
    centering: Annotated[
        float | None,
        typer.Option(help="0 not centred, 1 centred; else by the levels.", min=0, max=1),
    ] = None,
    target_accept: Annotated[
        float | None,
        typer.Option(help="Of nuts: higher is slower and safer (0.9).", min=0.5, max=0.999),
    ] = None,
    population_draws: Annotated[
        int | None, typer.Option(help="Of laplace, variational (2000, 4000).", min=1)
    ] = None,
    individual_draws: Annotated[
        int | None, typer.Option(help="Of these two: of each subject's random effects.", min=2)
    ] = None,
    family: Annotated[str | None, typer.Option(help="Of variational: flow, mean-field.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of variational (10000).", min=1)] = None,
    checkpoint: Annotated[
        bool, typer.Option(help="Go on where the same command was killed (nuts).")
    ] = True,
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
    from popk.runs import load_model

    trial = trial_from(data, unit, column, covariates)
    posterior, verdict = _fitted(
        load_model(model),
        trial,
        out,
        {
            "seed": seed,
            "method": method,
            "chains": chains,
            "warmup": warmup,
            "draws": draws,
            "centering": centering,
            "target_accept": target_accept,
            "population_draws": population_draws,
            "individual_draws": individual_draws,
            "family": family,
            "steps": steps,
            "progress": not quiet,
        },
        checkpoint=checkpoint,
        overwrite=overwrite,
        reported=report,
        quiet=quiet,
    )
    _print_fit(posterior, verdict, out)
    if not verdict.converged:
        raise typer.Exit(NOT_CONVERGED)


def _fitted(
    model: Any, trial: Any, out: Path, options: dict[str, Any], *,
    checkpoint: bool, overwrite: bool, reported: bool, quiet: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """Return the posterior and the verdict on it, when its run folder is made."""
    from popk.inference.convergence import convergence
    from popk.inference.fit import fit as sample
    from popk.inference.resuming import resumed_fit
    from popk.runs import checkpoint_beside, staged_run, verdict_of, write_run

    with staged_run(out, overwrite=overwrite) as folder:
        with _said_at_once():
            if checkpoint:
                posterior = resumed_fit(out, model, trial, options)
            else:
                posterior = sample(model, trial, **options)
        verdict = convergence(posterior)
        posterior.attrs["command"] = shlex.join(["popk", *sys.argv[1:]])
        more = {"convergence": verdict_of(verdict)}
        write_run(folder, model, posterior, trial, more)
        if reported:
            write_report(model, posterior, trial, folder / "report.html", progress=not quiet)
    if checkpoint:
        shutil.rmtree(checkpoint_beside(out), ignore_errors=True)
    return posterior, verdict


@contextlib.contextmanager
def _said_at_once() -> Iterator[None]:
    """Print what a fit says of its checkpoint, one line each; of convergence the report speaks."""
    from popk.inference.checkpoint import CheckpointWarning

    said = logging.StreamHandler(sys.stderr)
    said.setFormatter(logging.Formatter("popk: %(message)s"))
    log = logging.getLogger("popk")
    level = log.level
    log.addHandler(said)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            warnings.simplefilter("once", category=CheckpointWarning)
            warnings.showwarning = lambda message, *_: typer.echo(f"popk: {message}", err=True)
            yield
    finally:
        log.removeHandler(said)
        log.setLevel(level)


def _print_fit(posterior: Any, verdict: Any, out: Path) -> None:
    from popk.diagnostics.summary import summary

    typer.echo(rounded(summary(posterior)).to_string())
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
            f"{verdict.ess_bulk:.0f}, {verdict.diverging}"
        )
    else:
        typer.echo("NOT CONVERGED: do not use this posterior yet", err=True)
        for problem in verdict.problems():
            typer.echo(f"  {problem}", err=True)
