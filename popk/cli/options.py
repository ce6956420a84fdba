"""What do commands have in common? Options that several take, and how they read and print."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

# Heavy rooms are imported by the command that needs them, so that --help answers at once.

NOT_CONVERGED, INTERRUPTED = 3, 130

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


def trial_from(data: Path, units: Any, columns: Any, covariates: str | None) -> Any:
    """Return the trial of a data file and the options that say what its columns are."""
    from popk.trial import read_nonmem

    return read_nonmem(
        data,
        units=_pairs(units, "--unit"),
        columns=_pairs(columns, "--column"),
        covariates=None if covariates is None else [c for c in covariates.split(",") if c],
    )


def write_report(model: Any, posterior: Any, trial: Any, path: Path, **options: Any) -> None:
    """Write a report and say which section is being made; an interruption leaves no half of one."""
    from popk.reports.report import report

    with interruptible():
        report(model, posterior, trial, path, **options)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn an interruption into a sentence and the exit code that shells give it."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(f"popk: {error or 'interrupted'}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def rounded(table: Any) -> Any:
    """Return a table as a reader wants its numbers: four digits, and nothing where there is none."""
    return table.map(
        lambda x: f"{x:.4g}" if isinstance(x, float) and x == x else "" if x != x else x
    )
