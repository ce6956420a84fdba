"""Twins that are remembered: ``popk twin new|update|correct|forecast|history|verify|export|erase``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from popk.cli.options import Columns, Covariates, Units, trial_from
from popk.cli.using import print_forecast, times_of, twin

BROKEN = 4

group = typer.Typer(
    no_args_is_help=True,
    help="Patients' twins, in a store that remembers what was believed when.\n\n"
    "Example: popk twin new twins.db 3 --run runs/theophylline --records patient.csv --author NAME",
)
group.command("infer")(twin)  # without a store

Store = Annotated[str, typer.Argument(help="A file, or postgresql://USER@HOST/NAME.")]
Patient = Annotated[str, typer.Argument(help="The patient's ID, a pseudonym.")]
Author = Annotated[str, typer.Option(help="Who enters it.", envvar="POPK_AUTHOR")]
Rows = Annotated[Path, typer.Argument(help="Records of the patient; a column RECORD names them.")]
OtherRun = Annotated[Path | None, typer.Option("--run", help="By default that of the last update.")]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="What had been entered by then: 2026-11-23T08:30Z.")
]


@group.command()
def new(
    store: Store,
    patient: Patient,
    *,
    run: Annotated[Path, typer.Option(help="A run folder that popk fit made.")],
    records: Annotated[Path, typer.Option(help="The patient's records so far.")],
    author: Author,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Begin to remember a patient: their records, and what a run believes of them.

    Example: popk twin new twins.db 3 --run runs/theophylline --records patient.csv --author NAME
    """
    from popk.memory.writing import StoreError

    with _opened(store, create=True) as memory:
        if patient in memory.patients:
            raise StoreError(f"{store} has patient {patient} already; go on with popk twin update")
        _updated(memory, patient, records, run, author, options=(unit, column, covariates))


@group.command()
def update(
    store: Store,
    patient: Patient,
    records: Rows,
    *,
    author: Author,
    run: OtherRun = None,
    unit: Units = None,
    column: Columns = None,
    covariates: Covariates = None,
) -> None:
    """Enter further records, and what is believed with them.

    Records that the store has already are passed over, and counted.

    Example: popk twin update twins.db 3 new_levels.csv --author NAME
    """
    with _opened(store) as memory:
        memory.history(patient)  # a patient whom nobody entered is refused here
        _updated(memory, patient, records, run, author, options=(unit, column, covariates))


@group.command()
def correct(
    store: Store,
    patient: Patient,
    record: Annotated[str, typer.Argument(help="The record's ID; popk twin history lists them.")],
    values: Annotated[list[str] | None, typer.Argument(help="COLUMN=VALUE, such as DV=6.1")] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why.")],
    author: Author,
    retract: Annotated[bool, typer.Option(help="The record is not valid at all.")] = False,
) -> None:
    """Correct columns of a record, or retract it; what was said before remains.

    Example: popk twin correct twins.db 3 "EVID0 TIME1.5" DV=6.1 --reason typing --author NAME
    """
    if retract == bool(values):
        raise ValueError("give COLUMN=VALUE, or --retract where the record is not valid at all")
    kind, payload = ("retraction", {"reason": reason})
    if values:
        kind, payload = "correction", {"row": dict(map(_value, values)), "reason": reason}
    with _opened(store) as memory:
        _say(memory.append(patient, kind, payload, author=author, record=record))
        typer.echo("popk twin update or forecast takes it in")


@group.command()
def forecast(
    store: Store,
    patient: Patient,
    *,
    times: Annotated[str, typer.Option(help="FROM:TO:STEP, or times separated by commas.")],
    author: Author,
    run: OtherRun = None,
    as_of: AsOf = None,
    interval: Annotated[float, typer.Option(help="Of the forecast.", min=0.01, max=0.999)] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the residual errors.")] = 2,
) -> None:
    """Forecast a patient's levels, and remember the forecast; one as of an earlier day is only shown.

    Example: popk twin forecast twins.db 3 --times 24:48:6 --author NAME
    """
    with _opened(store) as memory:
        opened = _run_of(memory, patient, run)
        person = memory.twin(patient, opened, as_of, other_model=run is not None)
        table = print_forecast(person, times_of(times), interval, seed)
        if as_of is None:
            payload = {
                "interval": interval,
                "seed": seed,
                "pareto_k": _finite(person.pareto_k),
                **table,
            }
            _say(memory.append(patient, "forecast", payload, author=author, model=opened))


@group.command()
def history(
    store: Store,
    patient: Patient,
    *,
    as_of: AsOf = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only such entries.")] = None,
    unverified: Annotated[bool, typer.Option(help="Show a broken chain too.")] = False,
) -> None:
    """List what was entered about a patient, by whom and when.

    Example: popk twin history twins.db 3 --as-of 2026-11-23T08:30Z
    """
    with _opened(store) as memory:
        for entry in memory.history(patient, as_of, kind, unverified=unverified):
            when = entry.entered.strftime("%Y-%m-%d %H:%M:%SZ")
            says = "erased" if entry.erased else _shown(entry)
            typer.echo(f"{entry.sequence:>5} {when} {entry.kind:<14} {entry.author:<16} {says}")


@group.command()
def verify(
    store: Store,
    patient: Annotated[str | None, typer.Argument(help="By default all, and the store.")] = None,
    *,
    anchor: Annotated[
        list[str] | None, typer.Option(help="A head that was kept elsewhere, LENGTH:HASH.")
    ] = None,
) -> None:
    """Say whether entries were altered, removed or put in, and where first; exit code 4 where they were.

    The head that is printed, kept elsewhere, is an anchor for the next time.

    Example: popk twin verify twins.db
    """
    from popk.memory.chain import Head

    anchors = [Head(patient, *_anchor(text)) for text in anchor or []]
    with _opened(store) as memory:
        found = memory.verify(patient, anchors=anchors)
        typer.echo(found, err=not found.intact)
        if not found.intact:
            raise typer.Exit(BROKEN)
        head = memory.head(patient)
        typer.echo(f"head {head.length}:{head.hash}")


@group.command()
def export(
    store: Store,
    patient: Patient,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A JSON file; by default it is printed.")
    ] = None,
) -> None:
    """Write everything about a patient as JSON, with the hashes that verify it.

    Example: popk twin export twins.db 3 --out patient3.json
    """
    with _opened(store) as memory:
        text = json.dumps(memory.export(patient), indent=2)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
        typer.echo(out)


@group.command()
def erase(
    store: Store,
    patient: Patient,
    *,
    author: Author,
    reason: Annotated[str, typer.Option(help="Why; it remains.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase what is known of a patient; that it was, and by whom, remains. It cannot be undone.

    Example: popk twin erase twins.db 3 --author NAME --reason "consent withdrawn"
    """
    with _opened(store) as memory:
        if not yes:
            typer.confirm(f"Erase all of patient {patient} for good?", abort=True)
        _say(memory.erase(patient, author=author, reason=reason))


# Further commands on a store are added here: what is recommended, and what is watched.


def _opened(store: str, *, create: bool = False) -> Any:
    """Return an open store."""
    try:
        from popk.memory.store import TwinStore
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    return TwinStore(store, create=create)


def _updated(
    memory: Any, patient: str, path: Path, run: Path | None, author: str, *, options: Any
) -> None:
    """Enter the records of a file and the belief that follows, and print it."""
    opened = _run_of(memory, patient, run)
    unit, column, covariates = options
    if not path.with_suffix(".toml").is_file():  # nothing beside it: as in the trial of the fit
        known = opened.info["trial"]
        unit = [f"{n}={text}" for n, text in known["units"].items()] + (unit or [])
        covariates = ",".join(known["covariates"]) if covariates is None else covariates
    trial = trial_from(path, unit, column, covariates)
    ids = _record_ids(path, trial, patient)
    entries = memory.append_records(patient, trial[patient], author=author, ids=ids)
    known = sum(entry.repeated for entry in entries)
    typer.echo(f"{len(entries) - known} records entered, {known} known already")
    person = memory.twin(patient, opened, other_model=run is not None)
    typer.echo(person)
    _say(memory.remember(person, author=author, model=opened))


def _record_ids(path: Path, trial: Any, patient: str) -> list[str] | None:
    """Return what a file's column RECORD says of a patient's rows."""
    from popk.records.nonmem import read_rows

    if patient not in trial.ids:
        raise ValueError(f"{path} has no ID {patient}; it has {', '.join(trial.ids)}")
    rows, _ = read_rows(path)
    if "RECORD" not in rows:
        return None
    return [str(one) for one in rows["RECORD"][trial.host.frame["ID"].eq(patient).to_numpy()]]


def _run_of(memory: Any, patient: str, given: Path | None) -> Any:
    """Return the run that was asked for, or that of the last update."""
    from popk.runs import open_run

    if given is not None:
        return open_run(given)
    updates = memory.history(patient, kinds=["update"])
    if not (updates and updates[-1].model and updates[-1].model.get("run")):
        raise ValueError(f"no update of patient {patient} says with which run; give --run")
    return open_run(updates[-1].model["run"])


def _value(text: str) -> tuple[str, float]:
    """Return a column and its new value."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ValueError(f"{text!r}: write COLUMN=VALUE with a number, such as DV=6.1") from None


def _anchor(text: str) -> tuple[int, str]:
    """Return the length and hash of a head."""
    length, _, own = text.partition(":")
    if not length.isdigit() or len(own) != 64:
        raise ValueError(f"--anchor {text!r}: write LENGTH:HASH, as popk twin verify prints it")
    return int(length), own


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") and value == value else None


def _say(entry: Any) -> None:
    """Print that an entry is on disk, or was there before."""
    said = "known already as" if entry.repeated else "remembered as"
    typer.echo(f"{entry.kind} {said} entry {entry.sequence} of patient {entry.patient}")


def _shown(entry: Any) -> str:
    """Return what an entry says, on one line."""
    content = entry.payload
    if entry.kind == "record":
        content = content["row"]
    elif entry.kind == "update":
        found = content["parameters"].items()
        content = {n: float(f"{x['median']:.4g}") for n, x in found} | {
            "pareto_k": content["pareto_k"], "records": len(content["records"])
        }  # fmt: skip
    text = json.dumps(content)
    return f"[{entry.record}] {text:.160}" if entry.record else f"{text:.160}"
