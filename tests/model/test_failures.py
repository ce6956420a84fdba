"""Why is a prediction not a number? Sentences for values that a compiled function can only make NaN."""

import pytest

import popk
from popk.model.failures import failing, why_not
from tests.trials import trial

#: A dose that grows without end, one that is absorbed too fast for its few steps, and one above VMAX.
TEXT = """
ID TIME EVID AMT CMT SS II GROWTH KA DV
1  0    1    100 1   0  0  0      1  .
1  2    0    0   0   0  0  0      1  5
2  0    1    100 1   0  0  0.1    1  .
2  2    0    0   0   0  0  0.1    1  5
3  0    1    100 1   0  0  0      1e5 .
3  2    0    0   0   0  0  0      1e5 5
4  0    1    300 2   1  12 0      1  .
4  2    0    0   0   0  0  0      1  5
"""


@pytest.fixture(scope="module")
def four():
    return trial(TEXT, GROWTH="1/(mg*h)", KA="1/h")


def enzyme(trial):
    def rhs(A, p):
        absorbed = p.KA * A.depot
        eliminated = 20 * A.central / (30 + A.central)
        return {"depot": -absorbed, "central": absorbed - eliminated + p.GROWTH * A.central**2}

    p = {name: trial.covariate(name) for name in ("GROWTH", "KA")}
    amounts = popk.ode(trial, rhs, p, compartments=("depot", "central"), max_steps=1500)
    concentration = popk.concentration(trial, amounts.central, 20.0)
    popk.observe(trial, concentration, popk.additive_error(popk.fixed(1.0)))


def test_each_reason_is_a_sentence_with_the_subject_and_what_to_do(four):
    with pytest.raises(popk.ModelError) as caught:
        popk.predict_at(enzyme, four, {})
    lines = str(caught.value).splitlines()
    assert lines[0] == "amounts cannot be computed"
    for start, remedy in (
        ("  row 4  ID 3  TIME 0: the ODE solver did not reach this subject's end within its step limit",
         "give solver='implicit', or raise max_steps"),
        ("  row 2  ID 2  TIME 0: the ODE solver failed in this subject: amounts became infinite",
         "check the right-hand side at these parameter values, or give solver='implicit'"),
        ("  row 6  ID 4  TIME 0: no steady state was found for this subject's SS dose",
         "it may have none (the dose exceeds what can be eliminated): write the doses out instead"),
    ):  # fmt: skip
        (line,) = [line for line in lines if line.startswith(start)]
        assert line.endswith(remedy)
    assert len(lines) == 4


def test_reasons_are_collected_only_where_someone_asks(four):
    def model(trial):
        failing("it is broken; mend it", trial.time[:, 0].astype(int) - 1)
        failing("it is bent; straighten it", trial.time[:, 1].astype(int) - 1)
        popk.observe(trial, trial.time, popk.additive_error(popk.fixed(1.0)))

    failing("nobody asks", 0)
    assert why_not(model, four, {}) == [
        "  row 1  ID 1  TIME 2 (and 3 other IDs): it is bent; straighten it"
    ]
