"""What is advised on a remembered twin: ``popk twin recommend|watch``."""

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from popk.cli.twins import Author, OtherRun, Patient, Store, _finite, _opened, _run_of, _say, group

Regimens = Annotated[
    list[str],
    typer.Option(
        "--regimen", "-r",
        help="DOSE@INTERVAL, or DOSE@INTERVAL/DURATION of an infusion: 500@12, 1000@24/1.",
    ),
]  # fmt: skip


@group.command()
def recommend(
    store: Store,
    patient: Patient,
    *,
    regimen: Regimens,
    target: Annotated[
        str,
        typer.Option(help="QUANTITY:LOW:HIGH, such as trough:5:15, auc:400:, time_above:2:0.5."),
    ],
    author: Author,
    risk: Annotated[
        str | None, typer.Option(help="peak_above:20, trough_above:15 or auc_above:650.")
    ] = None,
    at: Annotated[str, typer.Option(help="steady state, last interval or first interval.")] = (
        "steady state"
    ),
    start: Annotated[float | None, typer.Option(help="When the regimens begin.")] = None,
    run: OtherRun = None,
) -> None:
    """Say of each regimen how probable target and harm are, and remember it; a clinician decides.

    Example: popk twin recommend twins.db 3 -r 200@12 -r 300@12 --target trough:5:15 --author NAME
    """
    from popk.advice.recommending import recommend as recommended

    with _opened(store) as memory:
        opened, person = _twin(memory, patient, run)
        candidates = {text: _regimen(text, person, start) for text in regimen}
        advice = recommended(
            person, candidates, _target(target), _target(risk) if risk else None, at=at
        )
        typer.echo(advice)
        payload = {
            "regimens": regimen, "target": target, "risk": risk, "at": at,
            "pareto_k": _finite(person.pareto_k), "warnings": list(advice.warnings),
            "table": _plain(advice.table),
        }  # fmt: skip
        _say(memory.append(patient, "recommendation", payload, author=author, model=opened))


@group.command()
def watch(
    store: Store,
    patient: Patient,
    *,
    above: Annotated[list[float] | None, typer.Option(help="A limit; may be repeated.")] = None,
    below: Annotated[list[float] | None, typer.Option(help="A limit; may be repeated.")] = None,
    horizon: Annotated[float, typer.Option(help="How far to look ahead.")],
    author: Author,
    probability: Annotated[float, typer.Option(help="From which on an alarm is raised.")] = 0.2,
    clears: Annotated[float | None, typer.Option(help="Below which it is cleared.")] = None,
    now: Annotated[float | None, typer.Option(help="By default the last level's time.")] = None,
    regimen: Annotated[
        str | None, typer.Option("--regimen", "-r", help="DOSE@INTERVAL; by default as planned.")
    ] = None,
    run: OtherRun = None,
) -> None:
    """Say how probable it is that limits are crossed, and remember it; the last alarm holds or clears.

    Example: popk twin watch twins.db 3 --above 20 --horizon 24 --author NAME
    """
    from popk.advice.rules import limit
    from popk.advice.watching import watch as watched

    options: dict[str, Any] = {"probability": probability, "clears": clears}
    rules = [limit(above=x, **options) for x in above or []]
    rules += [limit(below=x, **options) for x in below or []]
    with _opened(store) as memory:
        opened, person = _twin(memory, patient, run)
        before = memory.history(patient, kinds=["alarm"])
        previous = before[-1].payload["states"] if before and before[-1].payload else {}
        doses = None if regimen is None else _regimen(regimen, person, None)
        found = watched(person, rules, horizon, now=now, regimen=doses, previous=previous)
        typer.echo(found)
        payload = {
            "now": found.now, "horizon": horizon, "states": previous | found.states,
            "pareto_k": _finite(person.pareto_k), "warnings": list(found.warnings),
            "table": _plain(found.table),
        }  # fmt: skip
        _say(memory.append(patient, "alarm", payload, author=author, model=opened))


def _twin(memory: Any, patient: str, run: Path | None) -> tuple[Any, Any]:
    """Return the run and the patient's twin; its warnings stand in the advice."""
    from popk.patients.doubts import TwinWarning

    opened = _run_of(memory, patient, run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TwinWarning)
        return opened, memory.twin(patient, opened, None, other_model=run is not None)


def _regimen(text: str, person: Any, start: float | None) -> Any:
    """Return the regimen of DOSE@INTERVAL/DURATION."""
    from popk.patients.courses import next_dose_of
    from popk.patients.regimen import Regimen

    dose, _, rest = text.partition("@")
    interval, _, duration = rest.partition("/")
    try:
        numbers = float(dose), float(interval), float(duration) if duration else None
    except ValueError:
        raise ValueError(f"--regimen {text!r}: write DOSE@INTERVAL, such as 500@12") from None
    begin = next_dose_of(person, numbers[1]) if start is None else start
    return Regimen(dose=numbers[0], interval=numbers[1], duration=numbers[2], start=begin, count=10)


def _target(text: str) -> Any:
    """Return the target or risk of NAME:NUMBER:NUMBER."""
    from popk.advice import targets

    names = ("trough", "peak", "auc", "time_above", "peak_above", "trough_above", "auc_above")
    name, *numbers = text.split(":")
    try:
        values = [float(x) if x else None for x in numbers]
    except ValueError:
        values = []
    if name not in names or not 1 <= len(values) <= (1 if name.endswith("k_above") else 2):
        raise ValueError(
            f"{text!r}: write NAME:LOW:HIGH, such as trough:5:15, auc:400: or peak_above:20; the names "
            f"are {', '.join(names)}"
        )
    if name.endswith("_above") and len(values) > 1 and name != "time_above":
        raise ValueError(f"{text!r}: {name} has one limit")
    return getattr(targets, name)(*values)


def _plain(table: Any) -> dict[str, dict[str, Any]]:
    """Return a table as it is remembered: numbers, and nothing where there is none."""
    return {
        str(name): {c: v if isinstance(v, str) else _finite(float(v)) for c, v in row.items()}
        for name, row in table.iterrows()
    }
