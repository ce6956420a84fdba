"""The compartment structures a model calls: from parameters to a concentration at every record."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import popk
from tests.trials import UNITS, table, trial

TWO = """
ID TIME EVID AMT RATE CMT DV MDV
1  0    1    100 0    1   .  1
1  1    0    0   0    0   5  0
1  6    0    0   0    0   4  0
2  0    1    50  25   1   .  1
2  3    0    0   0    0   2  0
"""


ONE, TWO_COMPARTMENTS = jax.jit(popk.one_compartment), jax.jit(popk.two_compartment)


def one_compartment(trial, **parameters):
    return ONE(trial.arrays(), **parameters)


def two_compartment(trial, **parameters):
    return TWO_COMPARTMENTS(trial.arrays(), **parameters)


@pytest.fixture(scope="module")
def two():
    return trial(TWO)


def test_a_bolus_in_one_compartment_is_dose_over_volume_times_the_decay(two):
    found = one_compartment(two, CL=2.0, V=20.0)
    np.testing.assert_allclose(found[0], 5 * np.exp(-0.1 * np.array([0, 1, 6])), rtol=1e-14)
    infused = 25 / 2 * (1 - np.exp(-0.2)) * np.exp(-0.1)
    np.testing.assert_allclose(found[1, :2], [0, infused], rtol=1e-13, atol=1e-16)


def test_with_ka_compartment_1_is_the_depot(two):
    found = one_compartment(two, CL=2.0, V=20.0, KA=0.8)
    k, KA = 0.1, 0.8
    t = np.array([0, 1, 6])
    expected = 100 / 20 * KA / (KA - k) * (np.exp(-k * t) - np.exp(-KA * t))
    np.testing.assert_allclose(found[0], expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("KA", [None, 0.8])
def test_two_compartments_without_exchange_are_one(KA, two):
    apart = two_compartment(two, CL=2.0, V1=20.0, Q=1e-12, V2=30.0, KA=KA)
    np.testing.assert_allclose(
        apart, one_compartment(two, CL=2.0, V=20.0, KA=KA), rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize("KA", [None, 0.8])
def test_two_compartments_that_mix_at_once_are_one_large_one(KA, two):
    mixed = two_compartment(two, CL=2.0, V1=8.0, Q=1e7, V2=12.0, KA=KA)
    one = one_compartment(two, CL=2.0, V=20.0, KA=KA)
    np.testing.assert_allclose(mixed[0, 1:], one[0, 1:], rtol=1e-5)


def test_the_concentration_is_in_the_unit_of_levels(two):
    finer = popk.read_nonmem(table(TWO), units={**UNITS, "DV": "ng/mL"})
    np.testing.assert_allclose(
        one_compartment(finer, CL=2.0, V=20.0),
        1000 * one_compartment(two, CL=2.0, V=20.0),
    )


def test_a_parameter_may_be_one_number_or_one_a_subject_or_one_a_record(two):
    number = one_compartment(two, CL=2.0, V=20.0)
    for shape in ((), (2, 1), (1, 1), (2, 3), (1, 3)):
        np.testing.assert_allclose(one_compartment(two, CL=jnp.full(shape, 2.0), V=20.0), number)


def test_each_subject_has_its_own_parameters(two):
    CL = jnp.asarray([[2.0], [4.0]])
    found = one_compartment(two, CL=CL, V=20.0)
    for i, name in enumerate(two.ids):
        one = two[name]
        alone = one_compartment(one, CL=float(CL[i, 0]), V=20.0)
        np.testing.assert_allclose(found[i, : one.n_records], alone[0], rtol=1e-14)


def test_a_volume_that_changes_divides_the_amount_at_its_record(two):
    V = jnp.asarray([[20.0, 20.0, 40.0], [20.0, 20.0, 20.0]])
    found = one_compartment(two, CL=V / 10, V=V)
    np.testing.assert_allclose(found[0, 2], 100 * np.exp(-0.6) / 40, rtol=1e-13)


def test_bioavailability_and_lag_act_on_their_compartment(two):
    full = one_compartment(two, CL=2.0, V=20.0, KA=0.8)
    half = one_compartment(two, CL=2.0, V=20.0, KA=0.8, F={"depot": 0.5})
    np.testing.assert_allclose(half[0], full[0] / 2, rtol=1e-13, atol=1e-16)
    late = one_compartment(two, CL=2.0, V=20.0, KA=0.8, lag={"depot": 7.0})
    np.testing.assert_array_equal(late[0], 0)
    other = one_compartment(two, CL=2.0, V=20.0, KA=0.8, F={"central": 0.5}, lag={"central": 7.0})
    np.testing.assert_allclose(other, full, rtol=1e-13, atol=1e-15)


def test_a_lag_may_differ_between_subjects(two):
    lag = jnp.asarray([[2.0], [0.5]])
    found = one_compartment(two, CL=2.0, V=20.0, lag={"central": lag})
    np.testing.assert_allclose(found[0], [0, 0, 5 * np.exp(-0.4)], rtol=1e-13)


def by_value(text, **dosing):
    """Return the concentrations of the first subject of one compartment without absorption."""
    return np.asarray(one_compartment(trial(text), CL=2.0, V=20.0, **dosing))[0]


def test_a_rate_or_a_duration_may_be_the_model_s():
    text = "ID TIME EVID AMT RATE DV\n1 0 1 100 {0} .\n1 2 0 0 0 5\n1 7 0 0 0 5"
    peak = 25 / 2 * (1 - np.exp(-0.2))
    later = 25 / 2 * (1 - np.exp(-0.4)) * np.exp(-0.3)
    for rate, dosing in ((25, {}), (-1, {"R": {"central": 25.0}}), (-2, {"D": {"central": 4.0}})):
        np.testing.assert_allclose(
            by_value(text.format(rate), **dosing)[1:], [peak, later], rtol=1e-12
        )
    # F shortens an infusion of a known rate, and thins one of a known duration.
    halved = {"D": {"central": 4.0}, "F": {"central": 0.5}}
    np.testing.assert_allclose(
        by_value(text.format(-2), **halved)[1:], [peak / 2, later / 2], rtol=1e-12
    )


def test_a_steady_state_replaces_what_is_there_or_is_added_to_it():
    text = "ID TIME EVID AMT SS II DV\n1 0 1 40 0 0 .\n1 1 1 100 {0} 6 .\n1 3 0 0 0 0 5"
    steady = 5 / (1 - np.exp(-0.6)) * np.exp(-0.2)
    np.testing.assert_allclose(by_value(text.format(1))[2], steady, rtol=1e-12)
    added = steady + 2 * np.exp(-0.3)
    np.testing.assert_allclose(by_value(text.format(2))[2], added, rtol=1e-12)


def test_a_constant_infusion_at_steady_state_stops():
    text = "ID TIME EVID AMT RATE SS DV\n1 0 1 0 {0} 1 .\n1 3 0 0 0 0 5"
    for rate, dosing in ((8, {}), (-1, {"R": {"central": 8.0}})):
        found = by_value(text.format(rate), **dosing)
        np.testing.assert_allclose(found, [4, 4 * np.exp(-0.3)], rtol=1e-12)


def test_a_compartment_that_is_turned_off_is_empty_until_its_next_dose():
    text = (
        "ID TIME EVID AMT CMT DV MDV\n1 0 1 100 1 . 1\n1 1 0 0 -1 5 0\n1 2 0 0 0 5 0\n"
        "1 3 1 40 1 . 1\n1 5 0 0 1 5 0"
    )
    np.testing.assert_allclose(
        by_value(text), [5, 5 * np.exp(-0.1), 0, 2, 2 * np.exp(-0.2)], rtol=1e-12
    )


def test_initial_amounts_may_differ_between_subjects(two):
    start = {"central": jnp.asarray([[40.0], [10.0]])}
    found = one_compartment(two, CL=2.0, V=20.0, initial=start)
    without = one_compartment(two, CL=2.0, V=20.0)
    left = np.array([[2.0], [0.5]]) * np.exp(-0.1 * two.time)
    np.testing.assert_allclose(np.where(two.recorded, found - without, left), left, rtol=1e-12)


@pytest.mark.parametrize("KA", [None, 0.8])
def test_three_compartments_without_a_third_are_two(KA, two):
    p = {"CL": 2.0, "V1": 10.0, "V2": 30.0, "KA": KA}
    three = jax.jit(popk.three_compartment)(two.arrays(), **p, Q2=3.0, Q3=1e-12, V3=5.0)
    np.testing.assert_allclose(three, two_compartment(two, **p, Q=3.0), rtol=1e-9, atol=1e-15)


def refusal(part):
    with pytest.raises(popk.ModelError) as caught:
        part()
    return str(caught.value)


def test_a_dose_into_a_compartment_that_does_not_exist_is_refused():
    third = trial("ID TIME EVID AMT CMT DV\n1 0 1 100 3 .\n1 1 0 0 0 5")
    assert refusal(lambda: popk.one_compartment(third, CL=1.0, V=1.0, KA=1.0)) == (
        "a dose goes to CMT 3, but the compartments are depot 1, central 2; correct CMT, or set it 0 "
        "for depot"
    )
    assert refusal(lambda: popk.one_compartment(third, CL=1.0, V=1.0)) == (
        "a dose goes to CMT 3, but the compartments are central 1; correct CMT, or set it 0 for central"
    )


def test_a_level_from_a_compartment_that_is_not_predicted_is_refused():
    depot = trial("ID TIME EVID AMT CMT DV\n1 0 1 100 1 .\n1 1 0 0 1 5")
    assert refusal(lambda: popk.one_compartment(depot, CL=1.0, V=1.0, KA=1.0)) == (
        "levels are taken from CMT 1, but this model predicts them in central; its compartments are "
        "depot 1, central 2; set CMT 0"
    )


@pytest.mark.parametrize("what", ["F", "lag"])
def test_a_dosing_parameter_of_an_unknown_compartment_is_refused(what, two):
    assert refusal(lambda: popk.one_compartment(two, CL=1.0, V=1.0, **{what: {"gut": 0.5}})) == (
        f"{what} names compartment 'gut', but the compartments are central 1"
    )
    assert refusal(
        lambda: popk.two_compartment(two, CL=1.0, V1=1.0, Q=1.0, V2=1.0, **{what: {"depot": 0.5}})
    ) == (f"{what} names compartment 'depot', but the compartments are central 1, peripheral1 2")


@pytest.mark.parametrize(
    ("amount", "level"), [("mg", "umol/L"), ("mg", "percent"), ("mg/kg", "mg/kg")]
)
def test_levels_that_are_no_concentration_are_refused(amount, level):
    strange = popk.read_nonmem(table(TWO), units={"TIME": "h", "AMT": amount, "DV": level})
    assert refusal(lambda: popk.one_compartment(strange, CL=1.0, V=1.0)) == (
        "the unit of AMT per L cannot be converted to the unit of DV, so a concentration has no unit; "
        "give both as mass or both as amount of substance"
    )


@pytest.mark.parametrize("shape", [(2,), (3, 1), (2, 2), (3, 2), (1, 2, 3)])
def test_a_parameter_of_a_wrong_shape_is_refused(shape, two):
    assert refusal(lambda: popk.one_compartment(two, CL=jnp.ones(shape), V=1.0)) == (
        f"CL has shape {shape}; it must be one value, or [subject, 1] or [subject, record] as "
        f"popk.individual and trial.covariate() give"
    )


def test_a_wrong_shape_of_a_dosing_parameter_is_refused(two):
    assert "depot has shape (2,)" in refusal(
        lambda: popk.one_compartment(two, CL=1.0, V=1.0, KA=1.0, F={"depot": jnp.ones(2)})
    )


@pytest.mark.parametrize("KA", [1.3, 2.0 / 20.0], ids=["ordinary", "flip-flop"])
def test_gradients_through_a_trial_are_finite_on_padding_too(KA, two):
    def total(x):
        curve = one_compartment(
            two, CL=x[0], V=x[1], KA=x[2], F={"depot": x[3]}, lag={"depot": x[4]}
        )
        return jnp.where(two.recorded, curve, 0.0).sum()

    gradient = jax.jit(jax.grad(total))(jnp.asarray([2.0, 20.0, KA, 0.9, 0.4]))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient) != 0).all()


def test_padding_a_trial_further_changes_no_prediction(two):
    wide = one_compartment(two.padded(), CL=2.0, V=20.0, KA=0.8)
    np.testing.assert_allclose(
        np.asarray(wide)[:, :3][two.recorded],
        np.asarray(one_compartment(two, CL=2.0, V=20.0, KA=0.8))[two.recorded],
        rtol=1e-14, atol=1e-16,
    )  # fmt: skip


def test_the_parent_of_an_iv_and_an_oral_structure_agree_on_an_iv_dose():
    iv = trial("ID TIME EVID AMT CMT DV\n1 0 1 100 1 .\n1 5 0 0 1 5")
    oral = trial("ID TIME EVID AMT CMT DV\n1 0 1 100 2 .\n1 5 0 0 2 5")
    p = {"CL": 2.0, "V1": 10.0, "Q": 3.0, "V2": 30.0}
    np.testing.assert_allclose(
        two_compartment(iv, **p), two_compartment(oral, **p, KA=0.7), rtol=1e-13
    )


def test_with_lag_a_dosing_history_is_the_same_as_one_shifted():
    early = trial("ID TIME EVID AMT ADDL II DV\n1 0 1 100 3 6 .\n1 20 0 0 0 0 5")
    late = trial("ID TIME EVID AMT ADDL II DV\n1 2 1 100 3 6 .\n1 20.5 0 0 0 0 5")
    p = {"CL": 2.0, "V": 20.0, "KA": 0.8}
    shifted = one_compartment(early, **p, lag={"depot": 1.5})
    np.testing.assert_allclose(shifted[0, 1], one_compartment(late, **p)[0, 1], rtol=1e-13)
