"""Is a second implementation the same model? PyMC's log-density against popk's, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from numpyro.infer.util import log_density
from scipy.linalg import expm

import popk
from popk.inference.pymc_arithmetic import Arithmetic
from popk.inference.pymc_structures import difference, three_exponentials
from popk.model.sites import describe
from tests.conftest import model_of
from tests.trials import trial

PYTHON = "FAST_COMPILE"  # PyTensor's mode without a C compiler: a few evaluations need none


def lognormal(name, median):
    return numpyro.sample(f"{name}_pop", popk.lognormal(median, cv=0.3))


# --- models ---


def infusions(trial):
    """Two compartments: oral doses, infusions, a lag, levels below the limit, standard deviations add."""
    size = trial.covariate("WT") / 70
    V1 = numpyro.sample("V1_pop", dist.Gamma(20.0, 2.0))
    Q = numpyro.sample("Q_pop", dist.TruncatedNormal(2.0, 1.0, low=0.1))
    V2 = numpyro.sample("V2_pop", dist.HalfNormal(20.0))
    heavy = numpyro.sample("CL_heavy", dist.Normal(0.0, 0.5))
    p = popk.individual(
        trial, CL=lognormal("CL", 3) * size**0.75 * jnp.exp(jnp.where(size > 1, heavy, 0.0)),
        V1=V1 * size, Q=Q, F=numpyro.sample("F_pop", dist.Beta(5.0, 2.0)),
        transform={"F": "logit"}, correlated=[("F", "CL")], omega={"Q": popk.fixed(0.2)},
    )  # fmt: skip
    numpyro.deterministic("half_life", jnp.log(2.0) * p.V1 / p.CL)
    concentration = popk.two_compartment(
        trial, CL=p.CL, V1=p.V1, Q=p.Q, V2=V2, KA=lognormal("KA", 1), F={"depot": p.F},
        lag={"depot": lognormal("TLAG", 0.3)},
    )  # fmt: skip
    popk.observe(trial, concentration, popk.combined_error(0.5, 0.2, convention="sd"))


def infusions_trial():
    return trial(
        """
        ID TIME EVID AMT RATE CMT DV  MDV BLQ LLOQ II ADDL WT
        1  0    1    100 0    1   .   1   0   .    6  2    60
        1  0    0    .   .    2   0.1 0   0   .    0  0    60
        1  0.1  0    .   .    2   .   0   1   0.2  0  0    60
        1  1    0    .   .    2   3   0   0   .    0  0    60
        1  2    1    50  25   2   .   1   0   .    0  0    60
        1  3    0    .   .    2   3   0   0   .    0  0    60
        1  6    0    .   .    2   3   0   0   .    0  0    60
        1  13   0    .   .    2   .   0   1   0.5  0  0    60
        1  13   4    100 0    2   .   1   0   .    0  0    60
        1  14   0    .   .    2   .   1   0   .    0  0    60
        1  50   0    .   .    2   .   0   1   0.5  0  0    60
        2  0    1    100 0    2   .   1   0   .    0  0    80
        2  0    0    .   .    2   9   0   0   .    0  0    80
        2  4    0    .   .    2   3   0   0   .    0  0    80
        2  5    3    .   .    2   .   1   0   .    0  0    80
        2  0    4    70  0    1   .   1   0   .    0  0    80
        2  0    0    .   .    2   .   0   1   0.5  0  0    80
        2  2    0    .   .    2   4   0   0   .    0  0    80
        """,
        WT="kg",
    )


def steady(trial):
    """Three compartments at steady state: oral doses, boluses and infusions."""
    p = popk.individual(trial, CL=lognormal("CL", 3), V1=lognormal("V1", 10), correlated=False)
    rest = {n: lognormal(n, v) for n, v in {"Q2": 3, "V2": 20, "Q3": 0.5, "V3": 50}.items()}
    concentration = popk.three_compartment(trial, CL=p.CL, V1=p.V1, KA=lognormal("KA", 1), **rest)
    popk.observe(trial, concentration, popk.lognormal_error(0.3))


def steady_trial():
    return trial("""
        ID TIME EVID AMT RATE CMT DV  MDV II ADDL SS
        1  0    1    100 0    1   .   1   8  1    1
        1  0    0    .   .    0   0.1 0   0  0    0
        1  9    0    .   .    0   3   0   0  0    0
        1  12   1    50  25   2   .   1   12 0    1
        1  13   0    .   .    0   3   0   0  0    0
        1  20   0    .   .    0   3   0   0  0    0
        2  0    1    100 0    2   .   1   8  3    2
        2  0    0    .   .    0   9   0   0  0    0
        2  30   0    .   .    0   3   0   0  0    0
        2  31   1    10  0    1   .   1   5  0    2
        2  31   0    .   .    0   3   0   0  0    0
        """)


# --- popk's log-density at PyMC's values ---


def constrained(point):
    """Return values of PyMC's sampled variables, by their names, from its unconstrained ones."""
    values = {}
    for name, x in point.items():
        site, _, transform = name.partition("__")[0].rpartition("_")
        if name.endswith("_cholesky_corr__"):
            values[name.removesuffix("_cholesky_cholesky_corr__")] = _correlations(x)
        elif transform == "log":
            values[site] = jnp.exp(x)
        elif transform == "logodds":
            values[site] = jax.nn.sigmoid(x)
        elif transform == "interval":  # with a lower end alone, which is 0.1 here
            values[site] = 0.1 + jnp.exp(x)
        else:
            values[name] = x
    return values


def _correlations(x):
    """Return L L^T of the rows of a triangle with a diagonal of ones, each divided by its length."""
    n = int((1 + np.sqrt(1 + 8 * x.shape[0])) / 2)
    below = jnp.tril(jnp.concatenate([x[n - 1 :], x[::-1]]).reshape(n - 1, n - 1))  # PyMC's order
    rows = jnp.eye(n).at[1:, :-1].add(below)
    lower = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return lower, lower @ lower.T


def popk_density(model, trial):
    """Return popk's log-density as a function of PyMC's unconstrained values, centred."""
    sites, arrays = describe(model, trial), trial.arrays()
    own = sites.parameters

    def density(point):
        values, volume = constrained(point), 0.0
        for name in [n for n in values if n.startswith("corr")]:
            lower, values[name] = values[name]
            n = lower.shape[0]  # PyMC's density is that of the Cholesky factor
            volume += sum((n - 1 - i) * jnp.log(lower[i, i]) for i in range(1, n))
        u = jnp.stack([values.pop(f"eta_coordinate_{n}") for n in own], axis=-1)
        given = {n: v for n, v in values.items() if n in sites.all}
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.substitute(data=given):
            told = numpyro.handlers.trace(model).get_trace(arrays)
        typical = told["eta"]["infer"]["typical"]
        given["eta"] = u[:, None, :] - typical
        return log_density(model, (arrays,), {}, given)[0] + volume

    return jax.jit(jax.value_and_grad(density))


CASES = {
    "theophylline": lambda: (model_of("theophylline"), popk.read_nonmem("data/theophylline.csv")),
    "phenobarbital": lambda: (model_of("phenobarbital"), _few("phenobarbital")),
    "infusions below the limit": lambda: (infusions, infusions_trial()),
    "three compartments at steady state": lambda: (steady, steady_trial()),
}


def _few(name):
    whole = popk.read_nonmem(f"data/{name}.csv")
    return whole[list(whole.ids[:10])]


@pytest.mark.parametrize("case", CASES)
def test_the_log_density_and_its_gradient_are_popks(case):
    model, records = CASES[case]()
    written = popk.pymc_model(model, records, centering=1.0)
    theirs = written.compile_fn(
        [written.logp(jacobian=False), *pytensor.grad(written.logp(jacobian=False), written.value_vars)],
        mode=PYTHON, inputs=written.value_vars, point_fn=True,
    )  # fmt: skip
    ours = popk_density(model, records)
    rng = np.random.default_rng(1)
    begin = written.initial_point(random_seed=1)
    for _ in range(3):
        point = {k: x + 0.3 * rng.standard_normal(np.shape(x)) for k, x in begin.items()}
        value, *gradient = theirs(point)
        expected, slopes = ours(point)
        assert value == pytest.approx(float(expected), rel=1e-8)  # constants and all
        scale = max(float(jnp.abs(s).max()) for s in slopes.values())
        for variable, slope in zip(written.value_vars, gradient, strict=True):
            np.testing.assert_allclose(
                slope, slopes[variable.name], rtol=1e-8, atol=1e-9 * scale, err_msg=variable.name
            )
