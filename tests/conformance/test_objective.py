"""Approximate marginal likelihoods against NONMEM's and nlmixr2's, and against the exact ones.

NONMEM prints estimates with six digits, and its objective with more: at the printed estimates, which
are not quite the minimum, the objective differs by less than 1e-4.
"""

import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import popk


def final(path):
    """Return NONMEM's final estimates, by the names of its table."""
    table = pd.read_csv(path, sep=r"\s+", skiprows=1)
    return table[table["ITERATION"].eq(-1000000000)].iloc[0]


def spread(row, size):
    """Return standard deviations and correlations of NONMEM's OMEGA."""
    at = [(i, j) for i in range(1, size + 1) for j in range(1, i + 1)]
    omega = np.zeros((size, size))
    for i, j in at:
        omega[i - 1, j - 1] = omega[j - 1, i - 1] = row[f"OMEGA({i},{j})"]
    sd = np.sqrt(np.diag(omega))
    return sd, omega / sd[:, None] / sd


def by_subject(path):
    """Return each subject's random effects and objective, as NONMEM prints them."""
    table = pd.read_csv(path, sep=r"\s+", skiprows=1)
    etas = table[[c for c in table if c.startswith("ETA(")]].to_numpy()
    return etas, table["OBJ"].to_numpy()


# --- theophylline: one compartment, OMEGA full, every record a level, also that at time 0 ---


def theophylline_of(sd, corr, row):
    """Return the model of the reference, its own formula, at given values."""

    def theophylline(trial):
        typical = {"KA": row["THETA1"], "V": row["THETA2"], "K": row["THETA3"]}
        p = popk.individual(trial, omega={n: popk.fixed(x) for n, x in sd.items()}, **typical)
        t = trial.time
        f = 320 * p.KA / (p.V * (p.KA - p.K)) * (jnp.exp(-p.K * t) - jnp.exp(-p.KA * t))
        a, b = (float(np.sqrt(row[f"SIGMA({i},{i})"])) for i in (2, 1))
        popk.observe(trial, f, popk.combined_error(popk.fixed(a), popk.fixed(b)))

    return theophylline


@pytest.fixture(scope="module")
def levels_of_theophylline(conformance):
    path = conformance / "objective" / "theophylline_data.txt"
    names = ["ID", "DOSE", "TIME", "DV", "WT"]
    frame = pd.read_csv(path, sep=r"\s+", header=None, names=names, na_values=".")
    frame = frame[["ID", "TIME", "DV"]].assign(EVID=0, AMT=0.0)
    return popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"})


@pytest.mark.parametrize(
    ("method", "file", "expected"),
    [("fo", "fo", 57.321063707), ("focei", "focei", 92.8308690), ("laplace", "lapli", 93.5587044)],
)
def test_theophylline_is_nonmem_s(conformance, levels_of_theophylline, method, file, expected):
    row = final(conformance / "objective" / f"theophylline_{file}_ext.txt")
    sd, corr = spread(row, 3)
    model = theophylline_of(dict(zip(("KA", "V", "K"), sd, strict=True)), corr, row)
    found = popk.objective(model, levels_of_theophylline, {"corr": corr}, method)
    assert float(found["OFV"]) == pytest.approx(expected, abs=1e-4)
    etas, own = by_subject(conformance / "objective" / f"theophylline_{file}_phi.txt")
    # Random effects are printed with six digits; subjects at printed estimates differ by 1e-4 at most.
    np.testing.assert_allclose(found["eta"], etas, atol=1e-5)
    np.testing.assert_allclose(found["objective"], own, atol=2e-4)


# --- phenobarbital: boluses in newborns, two independent random effects, a proportional error ---


def test_phenobarbital_is_nonmem_s(conformance):
    folder = conformance / "objective"
    row = final(folder / "phenobarbital_ext.txt")

    def phenobarbital(trial):
        weight, low = trial.covariate("WGT"), trial.covariate("APGR") < 5
        V = row["THETA2"] * weight * (1 + row["THETA3"] * low)
        omega = {n: popk.fixed(row[f"OMEGA({i},{i})"] ** 0.5) for i, n in ((1, "CL"), (2, "V"))}
        p = popk.individual(trial, CL=row["THETA1"] * weight, V=V, omega=omega, correlated=False)
        error = popk.proportional_error(popk.fixed(row["SIGMA(1,1)"] ** 0.5))
        popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), error)

    frame = pd.read_csv(folder / "phenobarbital_data.csv", sep=r"\s+").fillna(0)
    frame["EVID"] = (frame["AMT"] > 0).astype(int)
    units = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WGT": "kg", "APGR": "1"}
    columns = ["ID", "TIME", "AMT", "EVID", "DV", "WGT", "APGR"]
    trial = popk.read_nonmem(frame[columns], units=units, covariates=["WGT", "APGR"])
    found = popk.objective(phenobarbital, trial, {})
    assert float(found["OFV"]) == pytest.approx(586.2760563, abs=1e-4)
    etas, own = by_subject(folder / "phenobarbital_phi.txt")
    np.testing.assert_allclose(found["eta"], etas, atol=1e-5)
    np.testing.assert_allclose(found["objective"], own, atol=2e-4)


# --- Wang (2007): ten people, one random effect, no estimation ---

SD = popk.fixed(0.1**0.5)
ERRORS = {
    "prop": popk.proportional_error(SD),
    "add": popk.additive_error(SD),
    "lnorm(on original scale)": popk.lognormal_error(SD),
    "add+prop combined2 (var=a^2+b^2f^2)": popk.combined_error(SD, SD),
    "add+prop combined1 (sd=a+b f)": popk.combined_error(SD, SD, convention="sd"),
}


def wang(error):
    def model(trial):
        p = popk.individual(trial, K=0.5, omega=popk.fixed(0.2))
        popk.observe(trial, 10 * jnp.exp(-p.K * trial.time), error)

    return model


@pytest.fixture(scope="module")
def levels_of_wang(conformance):
    frame = pd.read_csv(conformance / "objective" / "wang2007_data.csv")
    frame = frame.rename(columns={"Time": "TIME", "Y": "DV"}).assign(EVID=0, AMT=0.0)
    return popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"})


#: What nlmixr2's columns are here. Its "agq" takes two nodes by default, and its "laplace" is agq with
#: one, whose H is that of "focei": it has no second derivatives, as NONMEM's LAPLACE has.
COLUMNS = (("focei", None), ("foce", None), ("fo", None), ("agq", 2), ("agq", 1))


#: Each is five compiled programs; one stands for all where time matters.
KINDS = ["prop", *(pytest.param(k, marks=pytest.mark.slow) for k in list(ERRORS)[1:])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_wang_is_nlmixr2_s_to_its_last_digit(conformance, levels_of_wang, kind):
    path = conformance / "objective" / "wang2007_reference_ofv.json"
    expected = json.loads(path.read_text())[kind]
    model = wang(ERRORS[kind])
    for (method, nodes), value in zip(COLUMNS, expected, strict=True):
        found = popk.objective(model, levels_of_wang, {}, method, nodes=nodes)
        assert float(found["OFV"]) == pytest.approx(value, abs=6e-4), (method, nodes)


@pytest.mark.parametrize(("kind", "exact"), [("prop", 39.354803), ("add", -1.989614)])
def test_quadrature_with_many_nodes_reaches_the_exact_marginal(levels_of_wang, kind, exact):
    found = popk.objective(wang(ERRORS[kind]), levels_of_wang, {}, "agq", nodes=40)
    assert float(found["OFV"]) == pytest.approx(exact, abs=1e-6)
