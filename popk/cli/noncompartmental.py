"""What a data file says without a model: ``popk nca``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from popk.cli.options import Columns, Covariates, Data, Units, rounded, trial_from


def nca(
    data: Data,
    *,
    route: Annotated[
        str | None,
        typer.Option(
            help="What doses with RATE 0 are: bolus or extravascular; or by CMT, 1=extravascular,2=bolus."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A CSV, with all digits; else it is printed.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="A figure of the terminal slopes (png, pdf, svg)."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Trapezoidal rule: lin-up/log-down, linear, log.")
    ] = "lin-up/log-down",
    steady_state: Annotated[
        bool, typer.Option(help="The last dose of each subject is at steady state.")
    ] = False,
    dvid: Annotated[int | None, typer.Option(help="Which kind of levels.")] = None,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Analyze levels without a model: AUC, Cmax, half-life, clearance of each subject, with flags.

    Example: popk nca data/theophylline.csv --route extravascular --out table.csv
    """
    from popk.noncompartmental import nca as analyzed
    from popk.noncompartmental import nca_table

    trial = trial_from(data, unit, column, covariates)
    found = analyzed(
        trial,
        route=_route(route),
        method=method,
        steady_state=steady_state,
        DVID=dvid,
    )
    table: Any = nca_table(found)
    if figure is not None:
        from popk.plots import nca as drawn

        drawn(found).savefig(figure)
    if out is not None:
        table.to_csv(out, na_rep=".")
        typer.echo(out)
        return
    # Subjects side by side: a table of thirty columns is read by nobody.
    typer.echo(rounded(table.drop(columns="flags")).T.to_string())
    typer.echo("")
    for index, reasons in table["flags"].items():
        names = index if isinstance(index, tuple) else (index,)
        place = ", ".join(f"{n} {x}" for n, x in zip(table.index.names, names, strict=True))
        typer.echo(f"{place}: {reasons}" if reasons else f"{place}: no flags")


def _route(text: str | None) -> str | dict[int, str] | None:
    """Return what an option says doses are: for all, or by compartment."""
    if text is None or "=" not in text:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(cmt.strip().isdigit() and kind for cmt, _, kind in pairs):
        raise ValueError(f"--route {text!r}: write bolus, extravascular, or CMT=ROUTE,CMT=ROUTE")
    return {int(cmt): kind.strip() for cmt, _, kind in pairs}
