"""What is advised on a remembered twin, from the shell."""

import pandas as pd
import pytest
import typer

from popk.cli.advice import _plain, _regimen, _target


def test_targets_are_read_from_text():
    assert _target("trough:5:15").says({"DV": "mg/L", "TIME": "h"}) == "trough 5 to 15 mg/L"
    assert _target("auc:400:").high is None
    assert _target("peak_above:20").low == 20
    assert _target("time_above:2:0.6").low == 0.6


@pytest.mark.parametrize(
    "text", ["trough", "peak_above:1:2", "through:5:15", "trough:a", "auc:1:2:3"]
)
def test_a_target_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="write NAME:LOW:HIGH"):
        _target(text)


def test_regimens_are_read_from_text(twin):
    found = _regimen("500@12/1", twin, None)
    assert (found.dose, found.interval, found.duration, found.start) == (500, 12, 1, 12)
    with pytest.raises(ValueError, match="write DOSE@INTERVAL"):
        _regimen("500", twin, None)


def test_commands_are_those_of_a_twin():
    from popk.cli import twins

    assert {"recommend", "watch"} <= set(typer.main.get_group(twins).commands)
    assert _plain(pd.DataFrame({"a": [float("nan")]})) == {"0": {"a": None}}
