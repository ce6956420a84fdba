"""Many fits at once: ``popk batch``."""

from pathlib import Path
from typing import Annotated

import typer

from popk.cli.options import NOT_CONVERGED, rounded

FAILED = 2


def batch(
    jobs: Annotated[Path, typer.Argument(help="A TOML file of [[job]] tables and [defaults].")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the run folders.")] = Path(
        "runs"
    ),
    processes: Annotated[
        int | None, typer.Option(help="By default as many as there are processors.", min=1)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask scheduler, such as tcp://host:8786.")
    ] = None,
    retries: Annotated[int, typer.Option(help="Of a task whose process was lost.", min=0)] = 2,
    overwrite: Annotated[bool, typer.Option(help="Replace run folders of other inputs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Run many fits, each once: what is done is kept, what was killed goes on.

    Example: popk batch jobs.toml --out runs
    """
    from popk.batches.batch import run_batch

    table = run_batch(
        jobs, out, processes=processes, scheduler=scheduler, retries=retries,
        overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    typer.echo(rounded(table.drop(columns="why")).to_string())
    typer.echo(f"\n{out / 'batch.csv'}")
    for name, why in table.loc[table["status"].eq("failed"), "why"].items():
        typer.echo(f"popk: {name}: {why}", err=True)
    if "failed" in set(table["status"]):
        raise typer.Exit(FAILED)
    if not all(table["converged"]):
        raise typer.Exit(NOT_CONVERGED)
