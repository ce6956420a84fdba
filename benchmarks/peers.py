"""What would a user write instead? The same models in plain Diffrax, and by matrix exponentials.

Each peer takes a case and returns a structure for ``case.model(structure)``: one solve an
interval, scanned over records, vmapped over subjects, doses added in between, as in the
documentation of Diffrax; nothing is tuned to the case but the solver. Run by hand, one process
a figure so that compilation and memory are its own:

    uv run python benchmarks/peers.py              ratios, then all figures, as tables
    uv run python benchmarks/peers.py CASE         the ratios of one case, its roads timed in turn
    uv run python benchmarks/peers.py CASE PEER    one figure, as JSON
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cases
import diffrax
import jax
import jax.numpy as jnp
import optimistix
from cases import Case, Structure
from jax.scipy.linalg import expm

import popk
from popk.inference.compilation import keep_memory
from popk.inference.density import layout, log_density, start
from popk.variability import Centering

ROUND = 0.5  # [s] for which each road is run in turn: what a sampler sees is a warm cache
CALLS = 5  # of a log-density in one compiled loop, as a sampler calls it: no Python in between
RTOL, ATOL = 1e-7, 1e-9  # of the amounts
NEWTON = diffrax.with_stepsize_controller_tols(optimistix.Newton)()


def by_diffrax(
    case: Case,
    solver: diffrax.AbstractAdaptiveSolver,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
    max_steps: int = 4096,
) -> Structure:
    """Return levels by an adaptive solver, differentiated as Diffrax does by default.

    A step limit that is reached raises, as Diffrax does by default.

    Parameters
    ----------
    case : Case
    solver : AbstractAdaptiveSolver
        ``diffrax.Tsit5()``, or ``diffrax.Kvaerno5()`` where the system is stiff.
    rtol, atol : float
        Relative and absolute tolerance of a step [1, unit of AMT].
    max_steps : int
        Steps an interval may take; Diffrax's default.
    """
    system, amounts, times = case.system, case.grid("AMT"), case.grid("TIME")
    term = diffrax.ODETerm(lambda t, y, constants: jnp.asarray(system.field(y, constants)))
    controller = diffrax.PIDController(rtol=rtol, atol=atol)

    def one(p: Any, amounts: Any, times: Any) -> Any:
        constants = system.constants(p)

        def step(state: Any, record: Any) -> Any:
            before, now, dose = record
            solution = diffrax.diffeqsolve(
                term,
                solver,
                before,
                now,
                None,
                state,
                constants,
                saveat=diffrax.SaveAt(t1=True),
                stepsize_controller=controller,
                max_steps=max_steps,
            )
            reached: Any = solution.ys
            state = reached[-1].at[0].add(dose)
            return state, system.level(state, p)

        before = jnp.concatenate([times[:1], times[:-1]])
        start = jnp.asarray(system.start(p))
        return jax.lax.scan(step, start, (before, times, amounts))[1]

    return lambda trial, p: jax.vmap(one)(_scalars(p), amounts, times)


def by_expm(case: Case) -> Structure:
    """Return levels of a linear case by the matrix exponential of each interval.

    Parameters
    ----------
    case : Case
        One whose system has a rate matrix.
    """
    system, amounts, times = case.system, case.grid("AMT"), case.grid("TIME")
    if system.matrix is None:
        raise ValueError("the case's system has no rate matrix")
    matrix = system.matrix

    def one(p: Any, amounts: Any, times: Any) -> Any:
        rates = matrix(p)

        def step(state: Any, record: Any) -> Any:
            duration, dose = record
            state = (expm(rates * duration) @ state).at[0].add(dose)
            return state, system.level(state, p)

        start = jnp.asarray(system.start(p))
        return jax.lax.scan(step, start, (jnp.diff(times, prepend=times[:1]), amounts))[1]

    return lambda trial, p: jax.vmap(one)(_scalars(p), amounts, times)


def by_superposition(case: Case) -> Structure:
    """Return levels of two compartments as the textbook's sum over doses of three exponentials.

    Parameters
    ----------
    case : Case
        `cases.two_compartment`.
    """
    amounts, times = case.grid("AMT"), case.grid("TIME")

    def structure(trial: Any, p: Any) -> Any:
        k10, k12, k21 = p.CL / p.V1, p.Q / p.V1, (p.Q / p.V2)[..., None]
        total, product = k10 + k12 + k21[..., 0], k10 * k21[..., 0]
        root = jnp.sqrt(total**2 - 4 * product)
        alpha, beta, ka = (x[..., None] for x in ((total + root) / 2, (total - root) / 2, p.KA))
        since = times[:, :, None] - times[:, None, :]
        t = jnp.maximum(since, 0.0)
        unit = (
            (k21 - alpha) / ((ka - alpha) * (beta - alpha)) * jnp.exp(-alpha * t)
            + (k21 - beta) / ((ka - beta) * (alpha - beta)) * jnp.exp(-beta * t)
            + (k21 - ka) / ((alpha - ka) * (beta - ka)) * jnp.exp(-ka * t)
        )
        given = jnp.where(since >= 0, amounts[:, None, :] * unit, 0.0)
        return given.sum(-1) * p.KA / p.V1

    return structure


#: popk's own structure of each case, by the parameters that the case has.
OURS: dict[tuple[str, ...], Structure] = {
    ("CL", "V1", "Q", "V2", "KA"): lambda trial, p: popk.two_compartment(trial, **p._asdict()),
    ("VMAX", "KM", "V", "KA"): lambda trial, p: popk.concentration(
        trial, popk.ode(trial, SATURABLE, p).central, p.V
    ),
    ("CL", "V", "KON", "KOFF", "KINT", "KDEG", "KSYN"): lambda trial, p: popk.concentration(
        trial, popk.ode(trial, BINDING, p, solver="implicit").central, p.V
    ),
    ("CLINT", "CLR", "KA", "KP"): lambda trial, p: popk.concentration(
        trial,
        popk.linear(trial, cases.whole_body_rates, p, compartments=cases.STATES).venous,
        cases.BLOOD["venous"],
    ),
}
SATURABLE = popk.systems.michaelis_menten(depot=True, peripheral=False, linear=False)
BINDING = popk.systems.tmdd(depot=False, peripheral=False)


def by_popk(case: Case) -> Structure:
    """Return levels by popk.

    Parameters
    ----------
    case : Case
    """
    return OURS[tuple(case.typical)]


def _scalars(p: Any) -> Any:
    """Return parameters [subject, 1] as [subject]."""
    return jax.tree.map(lambda values: values[:, 0], p)


#: What a user would reach for. Kvaerno5 comes twice: its own root finder, VeryChord, fails near the
#: bends of a target-mediated curve, and nearly half of the steps are rejected; Newton's does not.
PEERS: dict[str, Callable[..., Structure]] = {
    "popk": by_popk,
    "superposition": by_superposition,
    "expm": by_expm,
    "Tsit5": partial(by_diffrax, solver=diffrax.Tsit5()),
    "Tsit5, 65536 steps": partial(by_diffrax, solver=diffrax.Tsit5(), max_steps=65536),
    "Kvaerno5": partial(by_diffrax, solver=diffrax.Kvaerno5()),
    "Kvaerno5, Newton": partial(by_diffrax, solver=diffrax.Kvaerno5(root_finder=NEWTON)),
}
ORAL = ("Tsit5", "expm", "superposition")
STIFF = ("Kvaerno5", "Kvaerno5, Newton")
#: Each case, and the peers that can solve it: Tsit5 does not reach the end of the target-mediated
#: one in Diffrax's 4,096 steps.
CASES: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
    "two-compartment, 100": (cases.two_compartment, ORAL),
    "two-compartment, 1000": (partial(cases.two_compartment, 1000), ORAL),
    "Michaelis-Menten, 100": (cases.michaelis_menten, ("Tsit5",)),
    "Michaelis-Menten, 1000": (partial(cases.michaelis_menten, 1000), ("Tsit5",)),
    "target-mediated, 64": (cases.target_mediated, (*STIFF, "Tsit5, 65536 steps")),
    "whole body, 20": (cases.whole_body, (*STIFF, "Tsit5", "expm")),
}


def log_posterior(case: Case, structure: Structure) -> tuple[Callable[..., Any], Any, Any]:
    """Return the log-density's value and gradient as a function, and a vector and arrays for it.

    Parameters
    ----------
    case : Case
    structure : Structure
    """
    model, trial = case.model(structure), case.trial()
    arrays, plan = jax.device_put(trial.arrays()), layout(model, trial, coordinates=True)
    ones = jnp.ones(len(case.typical))
    centering = Centering(0.75 * ones, ones)
    vector = start(case.model(_flat), plan, arrays, jax.random.key(1), centering)
    density = jax.value_and_grad(lambda v, a: log_density(model, plan, a, v, centering))
    return density, vector, arrays


def in_loop(density: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a density and its gradient `CALLS` times, each near the last.

    Parameters
    ----------
    density : Callable
        From a vector and arrays to a value and gradient.
    """

    def loop(vector: Any, arrays: Any) -> Any:
        def call(_: Any, carry: Any) -> Any:
            vector, total = carry
            value, gradient = density(vector, arrays)
            return vector + 1e-12 * gradient, total + value

        return jax.lax.fori_loop(0, CALLS, call, (vector, 0.0))

    return loop


def _flat(trial: Any, p: Any) -> Any:
    """Return a structure that is quick to compile, where only the sites matter."""
    return jnp.ones(trial.time.shape) * p[0]


def figures(case: str, peer: str, repeats: int = 3) -> dict[str, float]:
    """Return what value and gradient cost: ms a call in a loop, s to compile it, peak memory.

    The memory includes Python's and JAX's own, which `before_MiB` is. `cpu_ms` is the processor's
    time in all threads, and `load` tells whether others had the processor.

    Parameters
    ----------
    case, peer : str
        Names in `CASES` and `PEERS`.
    repeats : int
        Calls of which the median is given.
    """
    chosen = CASES[case][0]()
    density, vector, arrays = log_posterior(chosen, PEERS[peer](chosen))
    before = _peak()
    begun = time.perf_counter()
    compiled = jax.jit(in_loop(density)).lower(vector, arrays).compile()
    built = time.perf_counter() - begun
    after = _peak()
    jax.block_until_ready(compiled(vector, arrays))
    laps, spent = [], time.process_time()
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(vector, arrays))
        laps.append((time.perf_counter() - begun) / CALLS)
    return {
        "ms": 1e3 * statistics.median(laps),
        "cpu_ms": 1e3 * (time.process_time() - spent) / repeats / CALLS,
        "ms_min": 1e3 * min(laps),
        "load": os.getloadavg()[0],
        "compile_s": built,
        "before_MiB": before,
        "compiled_MiB": after,
        "peak_MiB": _peak(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def ratios(case: str, rounds: int = 3) -> None:
    """Print the median time of each road of a case, its calls interleaved, and its ratio to popk's.

    Parameters
    ----------
    case : str
        A name in `CASES`.
    rounds : int
        How often the roads are gone in turn.
    """
    chosen, roads = CASES[case][0](), {}
    for name in ("popk", *CASES[case][1]):
        density, vector, arrays = log_posterior(chosen, PEERS[name](chosen))
        compiled = jax.jit(in_loop(density)).lower(vector, arrays).compile()
        roads[name] = partial(compiled, vector, arrays)
        jax.block_until_ready(roads[name]())
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in roads}
    for _ in range(rounds):
        for name, road in roads.items():
            begun, spent, calls = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - begun < ROUND:
                jax.block_until_ready(road())
                calls += 1
            ended = time.perf_counter() - begun, time.process_time() - spent
            laps[name].append((ended[0] / calls / CALLS, ended[1] / calls / CALLS))
    medians = {n: [statistics.median(x) for x in zip(*v, strict=True)] for n, v in laps.items()}
    for name, (wall, cpu) in medians.items():
        ours = medians["popk"]
        print(
            f"{case:23} {name:19} {1e3 * wall:10.3f} ms {wall / ours[0]:8.1f} x, "
            f"CPU {1e3 * cpu:10.3f} ms {cpu / ours[1]:8.1f} x",
            flush=True,
        )


def main(arguments: list[str]) -> None:
    """Print the ratios of a case, one figure, or all of them, each from a process of its own."""
    keep_memory()  # for all roads alike: what `popk.fit` does
    if len(arguments) == 1:
        ratios(arguments[0])
        return
    if arguments:
        case, peer = arguments
        print(json.dumps(figures(case, peer)))
        return
    for case in CASES:
        subprocess.run([sys.executable, __file__, case], check=False)
    for case, (_, peers) in CASES.items():
        for peer in ("popk", *peers):
            with tempfile.TemporaryDirectory() as cache:
                cold, kept = (_measured(case, peer, cache) for _ in range(2))
            print(
                f"{case:23} {peer:19} {cold['ms']:8.1f} ms (CPU {cold['cpu_ms']:.1f}, load "
                f"{cold['load']:.1f}), compiled in {cold['compile_s']:.1f} s, from the cache in "
                f"{kept['compile_s']:.1f} s, {cold['peak_MiB']:.0f} MiB "
                f"({cold['before_MiB']:.0f} before, {cold['compiled_MiB']:.0f} compiled)",
                flush=True,
            )


def _measured(case: str, peer: str, cache: str) -> dict[str, float]:
    """Return the figures of a road from a process of its own that keeps compiled programs."""
    ended = subprocess.run(
        [sys.executable, __file__, case, peer],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ
        | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )
    return json.loads(ended.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(sys.argv[1:])
