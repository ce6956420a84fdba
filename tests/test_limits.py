"""Levels below the limit that are left out or replaced, by Beal's methods."""

import numpy as np
import pytest

import popk
from tests.trials import trial

RECORDS = """
    ID TIME EVID AMT DV  BLQ LLOQ DVID
    1  0    1    100 .   0   .    0
    1  1    0    .   .   1   0.5  1
    1  2    0    .   5   0   .    1
    1  3    0    .   .   1   0.5  1
    1  3    0    .   2   0   .    2
    1  4    0    .   .   1   0.5  1
    1  5    0    .   .   1   0.5  1
    2  0    0    .   .   1   0.2  1
"""


@pytest.fixture(scope="module")
def sparse():
    return trial(RECORDS)


@pytest.mark.parametrize(
    ("method", "levels"),
    [
        ("M1", [np.nan, 5, np.nan, 2, np.nan, np.nan, np.nan]),
        ("M5", [0.25, 5, 0.25, 2, 0.25, 0.25, 0.1]),
        ("M6", [0.25, 5, 0.25, 2, np.nan, np.nan, 0.1]),
        ("M7", [0, 5, 0, 2, 0, 0, 0]),
    ],
)
def test_levels_below_the_limit_are_replaced_as_beal_numbers_it(method, levels, sparse):
    found = popk.replace_blq(sparse, method)
    o = found.observations
    assert not np.any(o.below)
    np.testing.assert_array_equal(np.where(o.measured, o.value, np.nan), levels)
    assert found.host.name == f"DataFrame (below the limit: {method})"
    assert found.host.fingerprint != sparse.host.fingerprint
    assert np.sum(sparse.observations.below) == 5  # the trial itself is as it was


def test_a_method_that_is_a_likelihood_is_refused(sparse):
    with pytest.raises(
        ValueError, match=r"^method is 'M3'; it must be one of M1, M5, M6, M7 \(M3 is"
    ):
        popk.replace_blq(sparse, "M3")


def test_levels_above_or_between_limits_count_with_their_probability():
    records = trial("""
        ID TIME EVID DV CENS LIMIT
        1  1    0    50 -1   .
        1  2    0    6  1    2
        1  3    0    5  0    .
    """)
    o = records.observations
    np.testing.assert_array_equal(o.above, [True, True, False])
    np.testing.assert_array_equal(o.below, [False, True, False])
    np.testing.assert_array_equal(o.exact, [False, False, True])
    np.testing.assert_array_equal(o.upper, [50, 2, 1])
    np.testing.assert_array_equal(o.limit, [1, 6, 1])
    assert records.summary()["above the upper limit of quantification"] == 2
    again = popk.read_nonmem(records.to_dataframe())
    np.testing.assert_array_equal(again.observations.upper, o.upper)
