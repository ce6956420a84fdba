"""How fast is the log-density? popk's event loop against what a user would write by hand.

Log-density and gradient of a two-compartment oral model for 100 subjects with 26
records each: 14 doses by mouth, every 12 hours or so, and 12 levels. The three models are the same
NumPyro function but for the structure, and give the same numbers. Run by hand:

    uv run pytest benchmarks --benchmark-only
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from jax.scipy.linalg import expm

import popk
from popk.inference.density import layout, log_density, start

SUBJECTS, DOSES, LEVELS = 100, 14, 12
UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}


def records() -> pd.DataFrame:
    """Return a made-up trial in NONMEM layout."""
    rng = np.random.default_rng(0)
    tables = []
    for subject in range(1, SUBJECTS + 1):
        doses = pd.DataFrame({"TIME": 12.0 * np.arange(DOSES) + rng.uniform(0, 1, DOSES)})
        doses = doses.assign(EVID=1, AMT=rng.choice([50.0, 100.0, 200.0], DOSES), DV=np.nan, MDV=1)
        levels = pd.DataFrame({"TIME": np.sort(rng.uniform(1, 180, LEVELS))})
        levels = levels.assign(EVID=0, AMT=0.0, DV=rng.lognormal(0.5, 0.4, LEVELS), MDV=0)
        tables.append(pd.concat([doses, levels]).sort_values("TIME").assign(ID=subject))
    return pd.concat(tables, ignore_index=True)


def by_popk(trial, p):
    """Return levels by the closed form of each interval in the one event loop."""
    return popk.two_compartment(trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=p.V2, KA=p.KA)


def by_superposition(doses, dose_times, times, level_records, trial, p):
    """Return levels as the textbook's sum over doses of three exponentials."""
    k10, k12, k21 = p.CL / p.V1, p.Q / p.V1, p.Q / p.V2
    total = k10 + k12 + k21
    root = jnp.sqrt(total**2 - 4 * k10 * k21)
    alpha, beta = ((total + root) / 2)[..., None], ((total - root) / 2)[..., None]
    k21, ka = k21[..., None], p.KA[..., None]
    since = times[:, :, None] - dose_times[:, None, :]
    t = jnp.maximum(since, 0.0)
    unit = (
        (k21 - alpha) / ((ka - alpha) * (beta - alpha)) * jnp.exp(-alpha * t)
        + (k21 - beta) / ((ka - beta) * (alpha - beta)) * jnp.exp(-beta * t)
        + (k21 - ka) / ((alpha - ka) * (beta - ka)) * jnp.exp(-ka * t)
    )
    level = jnp.where(since >= 0, doses[:, None, :] * unit, 0.0).sum(-1) * p.KA / p.V1
    subject = jnp.arange(SUBJECTS)[:, None]
    return jnp.zeros(trial.time.shape).at[subject, level_records].set(level)


def by_matrix_exponential(amounts, times, trial, p):
    """Return levels by the matrix exponential of each interval, scanned over records."""

    def one(CL, V1, Q, V2, KA, amount, time):
        k10, k12, k21 = CL / V1, Q / V1, Q / V2
        zero = jnp.zeros_like(KA)
        rates = jnp.stack(
            [
                jnp.stack([-KA, zero, zero]),
                jnp.stack([KA, -k10 - k12, k21]),
                jnp.stack([zero, k12, -k21]),
            ]
        )

        def step(state, record):
            duration, dose = record
            state = (expm(rates * duration) @ state).at[0].add(dose)
            return state, state[1]

        _, central = jax.lax.scan(step, jnp.zeros(3), (jnp.diff(time, prepend=time[:1]), amount))
        return central / V1

    return jax.vmap(one)(*(x[:, 0] for x in (p.CL, p.V1, p.Q, p.V2, p.KA)), amounts, times)


def model_with(structure):
    """Return the model that differs from the others in its structure alone."""

    def model(trial):
        CL = numpyro.sample("CL_pop", popk.lognormal(5.0, cv=0.5))  # L/h
        V1 = numpyro.sample("V1_pop", popk.lognormal(20.0, cv=0.5))  # L
        Q = numpyro.sample("Q_pop", popk.lognormal(3.0, cv=0.5))  # L/h
        V2 = numpyro.sample("V2_pop", popk.lognormal(40.0, cv=0.5))  # L
        KA = numpyro.sample("KA_pop", popk.lognormal(1.0, cv=0.5))  # 1/h
        p = popk.individual(trial, CL=CL, V1=V1, Q=Q, V2=V2, KA=KA)
        popk.observe(trial, structure(trial, p), popk.combined_error(0.1, 0.2))

    return model


@pytest.fixture(scope="module")
def roads():
    """Return each road's compiled log-density and gradient, all at one vector, and that vector."""
    frame = records()
    trial = popk.read_nonmem(frame, units=UNITS)
    dose, level = frame[frame["EVID"] == 1], frame[frame["EVID"] == 0]

    def grid(values):
        return jnp.asarray(np.asarray(values, dtype=float).reshape(SUBJECTS, -1))

    place = frame.groupby("ID").cumcount()[frame["EVID"] == 0].to_numpy().reshape(SUBJECTS, LEVELS)
    structures = {
        "popk": by_popk,
        "superposition": partial(
            by_superposition,
            grid(dose["AMT"]),
            grid(dose["TIME"]),
            grid(level["TIME"]),
            jnp.asarray(place),
        ),
        "matrix exponential": partial(
            by_matrix_exponential, grid(frame["AMT"]), grid(frame["TIME"])
        ),
    }
    arrays, plan = trial.arrays(), layout(model_with(by_popk), trial, (0.75,) * 5)
    vector = start(model_with(by_popk), plan, arrays, jax.random.key(1))

    def compiled(structure):
        def density(vector, arrays):
            return log_density(model_with(structure), plan, arrays, vector)

        return jax.jit(jax.value_and_grad(density))

    densities = {name: partial(compiled(s), arrays=arrays) for name, s in structures.items()}
    expected = densities["popk"](vector)
    for name, density in densities.items():
        value, gradient = density(vector)
        np.testing.assert_allclose(value, expected[0], rtol=1e-8, err_msg=name)
        scale = float(jnp.abs(expected[1]).max())
        np.testing.assert_allclose(
            gradient, expected[1], rtol=1e-8, atol=1e-8 * scale, err_msg=name
        )
    return densities, vector


@pytest.mark.benchmark(
    group=f"log-density and gradient, {SUBJECTS} subjects x {DOSES + LEVELS} records"
)
@pytest.mark.parametrize("road", ["popk", "superposition", "matrix exponential"])
def test_log_density_and_gradient(benchmark, roads, road):
    densities, vector = roads
    value, _ = benchmark(lambda: jax.block_until_ready(densities[road](vector)))
    assert np.isfinite(value)
