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
from pytensor.compile.mode import Mode
from scipy.linalg import expm

import popk
from popk.inference.pymc_structures import difference, three_exponentials
from popk.model.sites import describe
from tests.conftest import model_of, trial_of
from tests.trials import UNITS, table, trial

#: PyTensor speaks of BLAS where it is first asked for, which depends on how it was installed.
pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")

PYTHON = Mode("py", None)  # nothing is compiled: a few evaluations need no more


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


def three(trial):
    """Three compartments: boluses and infusions, two parameters of which differ."""
    slow = numpyro.sample("CL_old", dist.Normal(-0.2, 0.1))
    CL = lognormal("CL", 3) * jnp.maximum(1 + slow * (trial.covariate("AGE") - 40) / 10, 0.1)
    p = popk.individual(trial, CL=CL, V1=lognormal("V1", 10), correlated=False)
    rest = {n: lognormal(n, v) for n, v in {"Q2": 3, "V2": 20, "Q3": 0.5, "V3": 50}.items()}
    concentration = popk.three_compartment(trial, CL=p.CL, V1=p.V1, **rest)
    popk.observe(trial, concentration, popk.lognormal_error(0.3))


def three_trial():
    return trial(
        """
        ID TIME EVID AMT RATE DV  MDV AGE
        1  0    1    100 0    .   1   30
        1  1    0    .   .    6   0   30
        1  12   1    50  25   .   1   30
        1  13   0    .   .    3   0   30
        1  20   0    .   .    1   0   30
        2  0    1    100 50   .   1   60
        2  1    0    .   .    2   0   60
        2  30   0    .   .    1   0   60
        """,
        AGE="year",
    )


def steady_oral(trial):
    """One compartment at steady state: oral doses, boluses and infusions."""
    p = popk.individual(trial, CL=lognormal("CL", 3), V=lognormal("V", 10), correlated=False)
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=lognormal("KA", 1))
    popk.observe(trial, concentration, popk.proportional_error(0.3))


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


CASES = {"phenobarbital": lambda: (model_of("phenobarbital"), _few("phenobarbital"))}


def _few(name):
    whole = trial_of(name)
    return whole[list(whole.ids[:10])]


LONG = {
    "theophylline": lambda: (model_of("theophylline"), _few("theophylline")),
    "three compartments": lambda: (three, three_trial()),
    "infusions below the limit": lambda: (infusions, infusions_trial()),
    "steady state": lambda: (steady_oral, steady_trial()),
    "three compartments at steady state": lambda: (steady, steady_trial()),
}  # minutes: popk's own side takes long to compile


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(c, marks=pytest.mark.slow) for c in LONG)])
def test_the_log_density_and_its_gradient_are_popks(case):
    model, records = {**CASES, **LONG}[case]()
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


@pytest.mark.parametrize("centering", [0.0, 0.5, {"CL": 0.3, "F": 1.0}])
def test_centering_changes_coordinates_and_nothing_else(centering):
    model, records = infusions, infusions_trial()
    each = (
        centering
        if isinstance(centering, dict)
        else dict.fromkeys(("CL", "V1", "Q", "F"), centering)
    )
    written = popk.pymc_model(model, records, centering=centering)
    centred = popk.pymc_model(model, records, centering=1.0)
    point = written.initial_point(random_seed=1)
    point |= {n: x + 0.2 for n, x in point.items()}
    values = evaluated(written, point, ["eta", "CL", "V1", "Q", "F", "omega_CL", "omega_V1", "omega_F",
                                        "corr_F_CL"])  # fmt: skip
    same = {**point}
    for n in ("CL", "V1", "Q"):
        same[f"eta_coordinate_{n}"] = np.log(values[n])
    same["eta_coordinate_F"] = np.log(values["F"] / (1 - values["F"]))
    # The volume of eta in those coordinates: each subject's is the product of L_jj ** (1 - c_j).
    left = np.sqrt(1 - values["corr_F_CL"][0, 1] ** 2)
    spread = {
        "F": values["omega_F"],
        "CL": values["omega_CL"] * left,
        "V1": values["omega_V1"],
        "Q": 0.2,
    }
    volume = sum((1 - each.get(n, 0.5)) * np.log(float(s)) for n, s in spread.items())
    expected = logp(centred, same) + records.n_subjects * volume
    assert logp(written, point) == pytest.approx(expected, rel=1e-10)


def logp(written, point):
    return float(written.compile_fn(written.logp(jacobian=False), mode=PYTHON, inputs=written.value_vars,
                                    point_fn=True)(point))  # fmt: skip


def evaluated(written, point, names):
    """Return recorded values of a PyMC model at a point."""
    wanted = written.replace_rvs_by_values([written[n] for n in names])
    found = written.compile_fn(wanted, mode=PYTHON, inputs=written.value_vars, point_fn=True,
                               on_unused_input="ignore")(point)  # fmt: skip
    return dict(zip(names, found, strict=True))


def test_names_and_axes_are_popks():
    written = popk.pymc_model(infusions, infusions_trial())
    axes = {v.name: written.named_vars_to_dims.get(v.name) for v in written.unobserved_RVs}
    assert {n for n in axes if not n.startswith("eta_coordinate")} == {
        "CL_pop", "CL_heavy", "V1_pop", "Q_pop", "V2_pop", "F_pop", "KA_pop", "TLAG_pop",
        "omega_CL", "omega_V1", "omega_Q", "omega_F", "corr_F_CL", "corr_F_CL_cholesky",
        "eta", "CL", "V1", "Q", "F", "sigma_intercept", "sigma_slope", "IPRED", "half_life",
    }  # fmt: skip
    assert axes["eta"] == ("subject", "parameter")
    assert axes["CL"] == ("subject",)
    assert axes["IPRED"] == ("observation",)
    assert list(written.coords["subject"]) == ["1", "2"]
    assert list(written.coords["parameter"]) == ["CL", "V1", "Q", "F"]
    assert [v.name for v in written.observed_RVs] == ["DV"]
    assert written.named_vars_to_dims["DV"] == ("observation",)
    assert all(labels is not None for labels in written.coords.values())
    assert len(written.coords["observation"]) == 11  # levels that count: one more has MDV 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Numba will use object mode:UserWarning")  # truncated normal
def test_pymc_draws_levels_from_its_prior():
    written = popk.pymc_model(infusions, infusions_trial())
    with written:
        drawn = pm.sample_prior_predictive(20, random_seed=1)
    levels = drawn["prior_predictive"]["DV"]
    assert levels.dims == ("chain", "draw", "observation")
    assert (levels[..., 1] >= 0.2).all()  # a level below its limit of 0.2 is drawn as the limit


# --- concentrations ---


def test_a_difference_of_exponentials_has_its_limit_and_derivatives_where_rates_meet():
    t, a = 2.0, 0.3
    for gap in (0.0, 1e-9, -1e-9):
        x, y = pt.dscalar(), pt.dscalar()
        found = difference(t, x, y)
        value, in_a, in_b = pytensor.function(
            [x, y], [found, *pytensor.grad(found, [x, y])], mode=PYTHON
        )(a, a + gap)
        assert value == pytest.approx(t * np.exp(-a * t), rel=1e-8)
        assert in_a == pytest.approx(-(t**2) / 2 * np.exp(-a * t), rel=1e-8)
        assert in_b == pytest.approx(-(t**2) / 2 * np.exp(-a * t), rel=1e-8)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_three_exponentials_are_those_of_the_rate_matrix(spread):
    CL, V1, Q2, V2, Q3, V3 = 3.0, 10.0, 4.0, 20.0, 0.5 * spread, 50.0
    k10, k12, k13, k21, k31 = CL / V1, Q2 / V1, Q3 / V1, Q2 / V2, Q3 / V3
    rates = np.array([[-(k10 + k12 + k13), k21, k31], [k12, -k21, 0], [k13, 0, -k31]])
    free = three_exponentials(*(pt.as_tensor([[x]]) for x in (CL, V1, Q2, V2, Q3, V3)))
    a, w = pytensor.function([], list(free), mode=PYTHON)()
    for t in (0.0, 1.0, 10.0, 100.0):
        assert (w * np.exp(-a * t)).sum() == pytest.approx(expm(rates * t)[0, 0], rel=1e-9)


# --- what has no counterpart ---

PLAIN = """
    ID TIME EVID AMT RATE CMT DV MDV WT OCC
    1  0    1    100 0    0   .  1   60 1
    1  1    0    .   .    0   3  0   60 1
    1  2    0    .   .    0   2  0   60 2
    2  0    1    100 0    0   .  1   60 1
    2  1    0    .   .    0   3  0   60 1
    2  2    0    .   .    0   2  0   60 2
    """


def plain(trial, error=None, correlated=False, structure=None, **options):
    """One compartment, with one thing changed."""
    CL = options.pop("CL", None)
    p = popk.individual(
        trial, CL=lognormal("CL", 3) if CL is None else CL(trial), V=lognormal("V", 20),
        correlated=correlated, **options,
    )  # fmt: skip
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, **(structure or {}))
    popk.observe(trial, concentration, error or popk.additive_error(1))


def by_ode(trial):
    def rhs(A, p):
        return {"central": -p.CL / p.V * A.central}

    A = popk.ode(trial, rhs, {"CL": lognormal("CL", 3), "V": 20.0}, compartments=("central",))
    popk.observe(trial, A.central, popk.additive_error(1))


def direct_effect(trial):
    C = popk.one_compartment(trial, CL=lognormal("CL", 3), V=20.0)
    popk.observe(trial, C / (1 + C), popk.additive_error(1))


def counts(trial):
    C = popk.one_compartment(trial, CL=lognormal("CL", 3), V=20.0)
    popk.observe(trial, C, popk.poisson())


def two_classes(trial):
    mix = popk.mixture(trial, {"fast": 0.5, "slow": 0.5})
    of = popk.individual(trial, classes=mix, CL={"fast": lognormal("CL", 3), "slow": 1.0}, V=20.0)
    each = [popk.one_compartment(trial, CL=p.CL, V=p.V) for p in of]
    popk.observe(trial, mix(fast=each[0], slow=each[1]), popk.additive_error(1))


def sorted_values(trial):
    CL = numpyro.sample("CL_pop", dist.LogNormal(jnp.zeros(2), 1).to_event(1))
    C = popk.one_compartment(trial, CL=jnp.sort(CL)[0], V=20.0)
    popk.observe(trial, C, popk.additive_error(1))


REFUSED = {
    "popk.ode": by_ode,
    "not the concentration": direct_effect,
    "endpoint .counts": counts,
    "a mixture": two_classes,
    "the primitive sort": sorted_values,
    "absorption=": lambda t: plain(t, structure={"absorption": popk.zero_order(D=1.0)}),
    "initial=": lambda t: plain(t, structure={"initial": {"central": 1.0}}),
    "between occasions": lambda t: plain(t, iov={"OCC": ["CL"]}),
    "Student's t": lambda t: plain(t, degrees=popk.fixed(4)),
    "a shared random effect": lambda t: plain(t, share={"V": "CL"}),
    "Box-Cox": lambda t: plain(t, transform={"V": popk.box_cox(0.5)}),
    "groups": lambda t: plain(t, groups={"WT": ["CL"]}, levels={"WT": (60, 70)}),
    "changes within subjects": lambda t: plain(t, CL=lambda t: 3.0 + t.covariate("OCC")),
    "degrees": lambda t: plain(t, error=popk.additive_error(1, degrees=popk.fixed(4))),
    "coefficient": lambda t: plain(t, error=popk.power_error(1, 1)),
    "blq='M4'": lambda t: plain(t, error=popk.additive_error(1, blq="M4")),
    "a Gumbel": lambda t: plain(t, CL=lambda t: jnp.exp(numpyro.sample("x", dist.Gumbel(0, 1)))),
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(named):
    with pytest.raises(popk.ModelError, match=f"no counterpart of .*{named}"):
        popk.pymc_model(REFUSED[named], trial(PLAIN, WT="kg", OCC="1"))


@pytest.mark.parametrize(
    ("named", "row"),
    [
        ("RATE -1 or -2", "1 0 1 100 -2 0 . 1 0 0 ."),
        ("an infusion into the depot", "1 0 1 100 50 1 . 1 0 0 ."),
        ("a dose into a peripheral", "1 0 1 100 0 3 . 1 0 0 ."),
        ("a constant infusion at steady state", "1 0 1 0 50 2 . 1 0 1 ."),
        ("longer than II", "1 0 1 100 10 2 . 1 5 1 ."),
        ("turned off", "1 0 2 0 0 -2 . 1 0 0 ."),
        ("above a limit", "1 0 0 0 0 2 . 0 0 0 8"),
    ],
)
def test_a_record_that_has_no_counterpart_is_refused_with_its_row(named, row):
    def model(trial):
        C = popk.two_compartment(
            trial, CL=lognormal("CL", 3), V1=20.0, Q=1.0, V2=20.0, KA=1.0, D={"depot": 1.0},
        )  # fmt: skip
        popk.observe(trial, C, popk.additive_error(1))

    def without_duration(trial):
        C = popk.two_compartment(trial, CL=lognormal("CL", 3), V1=20.0, Q=1.0, V2=20.0, KA=1.0)
        popk.observe(trial, C, popk.additive_error(1))

    text = f"""
        ID TIME EVID AMT RATE CMT DV MDV II SS ULOQ
        {row}
        1  1    0    .   .    2   3  0   0  0  .
        """
    records = table(text).assign(ALQ="0")
    records.loc[records["ULOQ"] != ".", "ALQ"] = "1"
    which = model if "RATE" in named else without_duration
    with pytest.raises(popk.ModelError, match="no counterpart of"):
        popk.pymc_model(which, popk.read_nonmem(records, units=UNITS))
