"""The systems a model writes itself: rates between compartments, or a right-hand side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import popk
from popk.model.sites import describe
from tests.trials import trial

HISTORY = """
ID TIME EVID AMT RATE CMT ADDL II DV MDV
1  0    1    100 0    1   1    8  .  1
1  1    0    0   0    2   0    0  5  0
1  9    0    0   0    2   0    0  4  0
2  0    1    50  25   2   0    0  .  1
2  3    0    0   0    2   0    0  2  0
"""
P = {"CL": 2.0, "V": 20.0, "KA": 0.8}
ORAL = ("depot", "central")


@pytest.fixture(scope="module")
def two():
    return trial(HISTORY)


@pytest.fixture(scope="module")
def expected(two):
    """Return the amounts in the central compartment by the closed form."""
    return jax.jit(lambda t: popk.one_compartment(t, **P) * P["V"])(two.arrays())


def named(A, p):
    absorbed = p.KA * A.depot
    return {"depot": -absorbed, "central": absorbed - p.CL / p.V * A.central}


def with_time(t, A, p):
    return [*named(A, p).values()]


def stacked(A, p):
    return jnp.stack([*named(A, p).values()])


def bent(A, p):
    rates = named(A, p)
    return {**rates, "depot": rates["depot"] * (1 + 0 * A.depot)}


def solved(part, trial):
    return jax.jit(part)(trial.arrays())


# --- what is asked ---


@pytest.mark.parametrize("rhs", [named, with_time, stacked], ids=lambda rhs: rhs.__name__)
def test_a_linear_right_hand_side_is_found_out_however_it_is_written(rhs, two, expected):
    amounts = solved(lambda t: popk.ode(t, rhs, P, compartments=ORAL), two)
    assert amounts.tier == "linear system, eigenvectors"
    assert amounts.why == "its rates are linear in the amounts"
    assert amounts._fields == ORAL
    np.testing.assert_allclose(amounts.central, expected, rtol=1e-12, atol=1e-14)


def test_rates_between_compartments_are_a_linear_system(two, expected):
    def rates(p):
        return {("depot", "central"): p.KA, ("central", None): p.CL / p.V}

    def matrix(p):
        return jnp.asarray([[-p.KA, 0.0], [p.KA, -p.CL / p.V]])

    for given in (rates, matrix):
        amounts = solved(lambda t, r=given: popk.linear(t, r, P, compartments=ORAL), two)
        assert amounts.tier == "linear system, eigenvectors"
        assert amounts.why == "the model gives its rate matrix"
        np.testing.assert_allclose(amounts.central, expected, rtol=1e-12, atol=1e-14)


def test_any_other_right_hand_side_is_integrated(two, expected):
    amounts = solved(lambda t: popk.ode(t, bent, P, compartments=ORAL, rtol=1e-9), two)
    assert amounts.tier == "ODE solver, Tsitouras 5(4), explicit, rtol 1e-09"
    np.testing.assert_allclose(amounts.central, expected, rtol=1e-7, atol=1e-8)


def test_a_stiff_system_may_be_solved_implicitly(two, expected):
    amounts = solved(lambda t: popk.ode(t, bent, P, compartments=ORAL, solver="implicit"), two)
    assert amounts.tier == "ODE solver, RODAS 4(3), implicit, rtol 1e-07"
    np.testing.assert_allclose(amounts.central, expected, rtol=1e-5, atol=1e-6)


def test_a_chain_of_equal_rates_whose_eigenvectors_are_too_few_is_squared(two):
    names = ("first", "second", "third")

    def chain(p):
        return {("first", "second"): p.K, ("second", "third"): p.K, ("third", None): p.K}

    amounts = solved(lambda t: popk.linear(t, chain, {"K": 0.7}, compartments=names), two["1"])
    assert amounts.tier == "linear system, repeated squaring"
    x = 0.7 * 1.0
    erlang = 100 * np.exp(-x) * np.array([1, x, x**2 / 2])
    np.testing.assert_allclose([a[0, 1] for a in amounts], erlang, rtol=1e-13)


def test_parameters_may_be_numbers_arrays_or_what_individual_returned(two):
    KA = jnp.asarray([[0.8], [1.6]])

    def individually(t):
        p = popk.individual(t, CL=2.0, V=20.0, KA=KA)
        return popk.ode(t, named, p, compartments=ORAL)

    from numpyro import handlers

    eta = {"eta": jnp.zeros((2, 1, 3)), "corr": jnp.eye(3)}
    model = handlers.substitute(handlers.seed(individually, 0), eta)
    found = solved(model, two)
    given = solved(lambda t: popk.ode(t, named, {**P, "KA": KA}, compartments=ORAL), two)
    np.testing.assert_allclose(found.central, given.central, rtol=1e-12, atol=1e-14)


def test_what_always_flows_in_and_initial_amounts_are_kept_in_balance(two):
    def turnover(A, p):
        return {"depot": 0 * A.depot, "central": p.KIN - p.KOUT * A.central}

    p = {"KIN": 6.0, "KOUT": 0.5}
    alone = trial("ID TIME EVID AMT DV MDV\n1 3 0 0 5 0\n1 9 0 0 5 0")
    amounts = solved(
        lambda t: popk.ode(t, turnover, p, compartments=ORAL, initial={"central": 12.0}), alone
    )
    assert amounts.tier.startswith("linear")
    np.testing.assert_allclose(amounts.central, [[12, 12]], rtol=1e-13)
    empty = solved(lambda t: popk.ode(t, turnover, p, compartments=ORAL), alone)
    np.testing.assert_allclose(empty.central[0], [0, 12 * (1 - np.exp(-3))], rtol=1e-12, atol=1e-14)


def test_doses_without_a_compartment_go_to_the_first_or_to_the_one_named():
    oral = trial("ID TIME EVID AMT DV MDV\n1 0 1 100 . 1\n1 1 0 0 5 0")
    first = solved(lambda t: popk.ode(t, named, P, compartments=ORAL), oral)
    second = solved(lambda t: popk.ode(t, named, P, compartments=ORAL, dosed="central"), oral)
    np.testing.assert_array_equal([first.depot[0, 0], first.central[0, 0]], [100, 0])
    np.testing.assert_array_equal([second.depot[0, 0], second.central[0, 0]], [0, 100])


def test_amounts_over_a_volume_are_a_concentration_in_the_unit_of_levels(two):
    finer = popk.read_nonmem(two.to_dataframe(), units={"DV": "ng/mL"})
    amount = jnp.ones(two.time.shape)
    np.testing.assert_allclose(popk.concentration(two.arrays(), amount, 20.0), amount / 20)
    np.testing.assert_allclose(popk.concentration(finer.arrays(), amount, 20.0), amount * 50)
    percent = popk.read_nonmem(two.to_dataframe(), units={"DV": "percent"})
    with pytest.raises(popk.ModelError, match="a concentration has no unit"):
        popk.concentration(percent, amount, 20.0)


# --- which solver, and why ---


def observed(part):
    """Return a model that observes what a part gives."""

    def model(trial):
        popk.observe(trial, part(trial), popk.additive_error(popk.fixed(1.0)))

    return model


def test_explain_says_how_each_structure_is_solved_and_why(two, capsys):
    @observed
    def model(t):
        closed = popk.one_compartment(t, **P)
        linear = popk.linear(t, lambda p: {("a", "b"): p.KA}, P, compartments=("a", "b"))
        return closed + linear.b + popk.ode(t, bent, P, compartments=ORAL).central

    popk.explain(model, two)
    assert capsys.readouterr().out == (
        "depot, central: closed form, because its exponentials are known\n"
        "a, b: linear system, eigenvectors, because the model gives its rate matrix\n"
        "depot, central: ODE solver, Tsitouras 5(4), explicit, rtol 1e-07, because its rates are not "
        "linear in the amounts\n"
    )


def test_explain_says_what_turning_a_compartment_off_costs(capsys):
    off = trial(HISTORY + "2 4 2 0 0 -1 0 0 . 1\n")
    popk.explain(observed(lambda t: popk.one_compartment(t, **P)), off)
    assert capsys.readouterr().out == (
        "depot, central: linear system, matrix exponential of each interval, because a compartment is "
        "turned off in the trial\n"
    )


def test_explain_of_a_model_without_a_structure_says_so(two, capsys):
    popk.explain(observed(lambda t: jnp.ones(t.time.shape)), two)
    assert capsys.readouterr().out == "the model calls no structure of popk\n"


# --- what is refused ---


def refusal(part):
    with pytest.raises(popk.ModelError) as caught:
        part()
    return str(caught.value)


def of_ode(two, rhs, p=P, compartments=ORAL, **other):
    return refusal(lambda: popk.ode(two, rhs, p, compartments=compartments, **other))


@pytest.mark.parametrize("compartments", [None, (), "central"])
def test_compartments_without_names_are_refused(compartments, two):
    assert of_ode(two, named, compartments=compartments) == (
        "the compartments have no names; give compartments=('depot', 'central'), in CMT's order"
    )


@pytest.mark.parametrize(("names", "wrong"), [(("a", "a"), "a, a"), (("a", "the gut"), "the gut")])
def test_names_that_are_no_names_are_refused(names, wrong, two):
    assert of_ode(two, named, compartments=names) == (
        f"compartments {wrong}: each needs a name of its own, a Python one"
    )


def test_a_dosed_compartment_that_does_not_exist_is_refused(two):
    assert of_ode(two, named, dosed="gut") == (
        "dosed is 'gut', but the compartments are depot, central"
    )


@pytest.mark.parametrize(
    ("rhs", "says"),
    [
        (lambda A, p: {"depot": -A.depot}, "gives no rate of change for central"),
        (
            lambda A, p: {"depot": -A.depot, "central": A.depot, "gut": 0.0},
            "gives one for gut, which is no compartment",
        ),
        (
            lambda A, p: {"depot": -A.depot, "gut": A.depot},
            "gives no rate of change for central and gives one for gut, which is no compartment",
        ),
    ],
)
def test_a_right_hand_side_of_other_names_is_refused(rhs, says, two):
    assert of_ode(two, rhs) == f"the right-hand side {says}; the compartments are depot, central"


@pytest.mark.parametrize(
    ("rhs", "size"),
    [
        (lambda A, p: [A.depot], 1), (lambda A, p: jnp.zeros(3), 3), (lambda A, p: A.depot, 1),
        (lambda A, p: jnp.zeros((2, 2)), 4),
    ],
)  # fmt: skip
def test_a_right_hand_side_of_another_length_is_refused(rhs, size, two):
    assert of_ode(two, rhs) == (
        f"the right-hand side gives {size} rates of change; the compartments are 2: depot, central"
    )


def test_a_parameter_that_p_lacks_is_named_with_the_line_that_reads_it(two):
    def rhs(A, p):
        return {"depot": -p.KA * A.depot, "central": p.KM * A.depot}

    line = rhs.__code__.co_firstlineno + 1
    model = observed(lambda t: popk.ode(t, rhs, P, compartments=ORAL).central)
    says = refusal(lambda: describe(model, two))
    assert "raised AttributeError" in says
    assert f"line {line}" in says
    assert "'KM'" in says


def test_parameters_that_are_no_mapping_are_refused(two):
    assert of_ode(two, named, p=[1.0, 2.0]) == (
        "p is a list; give what popk.individual returned, or a mapping"
    )


def test_a_rate_matrix_of_another_shape_is_refused(two):
    assert refusal(lambda: popk.linear(two, lambda p: jnp.eye(3), P, compartments=ORAL)) == (
        "the rate matrix has shape (3, 3); the compartments are 2: depot, central"
    )


@pytest.mark.parametrize("road", [("depot", "gut"), ("gut", None), (None, "depot")])
def test_a_rate_from_or_to_nowhere_is_refused(road, two):
    assert refusal(lambda: popk.linear(two, lambda p: {road: p.KA}, P, compartments=ORAL)) == (
        f"a rate goes from {road[0]} to {road[1]}; the compartments are depot, central, and None, as a "
        f"target, is out of the body"
    )


def test_a_steady_state_of_rates_that_depend_on_time_is_refused_with_its_row():
    steady = trial("ID TIME EVID AMT SS II DV MDV\n1 0 0 0 0 0 5 0\n1 1 1 100 1 8 . 1")

    def daily(t, A, p):
        return {"central": -p.CL * (1 + jnp.cos(t)) * A.central}

    model = observed(lambda t: popk.ode(t, daily, P, compartments=("central",)).central)
    assert refusal(lambda: describe(model, steady)) == (
        "DataFrame row 1  ID 1  TIME 1: a dose is at steady state, but the right-hand side depends on "
        "time, so there is none; write the doses out, with ADDL and II"
    )
