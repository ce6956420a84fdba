"""``popk nca`` prints the table with its flags, or writes it."""

from pathlib import Path

import pandas as pd
import pytest

from tests.test_cli import shell

DATA = str(Path(__file__).parents[2] / "data" / "theophylline.csv")


def test_it_prints_subjects_side_by_side_and_flags_below(capsys, monkeypatch):
    code, out, _ = shell(capsys, monkeypatch, "nca", DATA, "--route", "extravascular")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("half_life [h]"))
    assert line.split()[2:4] == ["14.3", "6.659"]
    assert "ID 1: the terminal slope spans 1.07 half-lives" in out
    assert "ID 2: no flags" in out


def test_it_writes_a_table_and_a_figure(capsys, monkeypatch, tmp_path):
    table, figure = tmp_path / "table.csv", tmp_path / "slopes.png"
    code, out, _ = shell(
        capsys, monkeypatch, "nca", DATA, "--route", "0=extravascular", "--method", "linear",
        "--out", str(table), "--figure", str(figure),
    )  # fmt: skip
    assert code == 0
    assert out.strip() == str(table)
    written = pd.read_csv(table)
    assert written["AUC_last [h*mg/L]"][0] == pytest.approx(148.92305)
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "RATE is 0 on 12 doses"),
        (["--route", "oral"], "route is 'oral'"),
        (["--route", "one=bolus"], "--route 'one=bolus': write"),
        (["--route", "bolus", "--method", "spline"], "method is 'spline'"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(capsys, monkeypatch, options, says):
    code, _, err = shell(capsys, monkeypatch, "nca", DATA, *options)
    assert code == 2
    assert says in err
