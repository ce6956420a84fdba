"""Small trials that the published models of models/ are checked on, and a figure that each must give.

A model with data has its own trial. Any other has two subjects here: the first is given the drug as
patients are, the second by an infusion that lasts until nothing changes any more, where what is
infused equals what is eliminated. The figures follow from that balance, by hand.
"""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pandas as pd

import popk

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "models").glob("*.py"))


class Figure(NamedTuple):
    """What a model predicts with its published values: a level of one subject at one time."""

    subject: str
    TIME: float
    expected: float
    output: str | None = None
    rel: float = 1e-3


Time = float | tuple[float, int]  # of levels of every kind, or of one DVID alone


class Design(NamedTuple):
    """A trial without levels: doses and covariates of two subjects, and when levels are taken."""

    units: tuple[str, str, str]  # of TIME, AMT and DV
    doses: tuple[Sequence[dict[str, float]], Sequence[dict[str, float]]]
    times: tuple[Sequence[Time], Sequence[Time]]
    figures: Sequence[Figure]
    covariates: tuple[dict[str, float], dict[str, float]] = ({}, {})
    kinds: int = 1  # of levels: DVID 1, 2, ...


def infusion(rate: float, until: float, cmt: int = 0) -> list[dict[str, float]]:
    """Return one infusion from time 0."""
    return [{"TIME": 0, "AMT": rate * until, "RATE": rate, "CMT": cmt}]


def model_file(name: str) -> ModuleType:
    """Return models/NAME.py, run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "models" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trial_for(name: str) -> popk.Trial:
    """Return the trial that a model of models/ is checked on: some of its data, or its design."""
    data = ROOT / "data" / f"{DATA.get(name, name)}.csv"
    if data.is_file():
        trial = popk.read_nonmem(data)
        return trial[list(trial.ids[: FEW.get(name, len(trial.ids))])]
    assert name in DESIGNS, (
        f"models/{name}.py has neither data/{name}.csv nor a design in {__file__}"
    )
    return designed(DESIGNS[name], model_file(name))


def designed(design: Design, model: ModuleType) -> popk.Trial:
    """Return the trial of a design."""
    rows = [
        row | {"ID": ID, "DV": math.nan, "MDV": 1} | design.covariates[ID - 1]
        for ID in (1, 2)
        for row in (
            *({"EVID": 1, "DVID": 1, "RATE": 0, "CMT": 0, **dose} for dose in design.doses[ID - 1]),
            *(
                {"TIME": time, "EVID": 0, "AMT": 0, "RATE": 0, "CMT": 0, "DVID": kind}
                for time, kind in _levels(design, ID)
            ),
        )
    ]
    frame = pd.DataFrame(rows).fillna({"II": 0, "ADDL": 0}).sort_values(["ID", "TIME", "EVID"])
    units = getattr(model, "COVARIATES", {})
    known = dict(zip(("TIME", "AMT", "DV"), design.units, strict=True))
    return popk.read_nonmem(frame, covariates=tuple(units), units={**known, **units})


def _levels(design: Design, ID: int) -> list[tuple[float, int]]:
    every = range(1, design.kinds + 1)
    return [
        level
        for time in design.times[ID - 1]
        for level in ([time] if isinstance(time, tuple) else [(time, kind) for kind in every])
    ]


DATA = {  # of models that bear another name
    "phenobarbital_covariates": "phenobarbital",
    "quinidine_covariates": "quinidine",
}
FEW = {  # subjects
    "phenobarbital": 8, "phenobarbital_covariates": 8, "quinidine": 8, "quinidine_covariates": 4,
    "remifentanil": 2, "simulated_hepatic": 11,
}  # fmt: skip

_GENTAMICIN = 6.21 * (3 / 70) ** 0.632 * 40**3.33 / (40**3.33 + 55.4**3.33) * 5 / 6.7  # L/h
_INDUCED = 1 + 1.04 * 5 / (0.0705 + 5)  # clearance at 5 mg/L of rifampicin, relative
_SIZE = (45 + 0.311 * 10) / 70  # rifampicin: 55 kg, of which 45 kg is free of fat
_UNTIL_LINEAR = math.log(0.814 / 0.273 / 0.055) / 0.273  # days of exponential growth of a tumor

DESIGNS = {
    "cefamandole": Design(
        ("min", "mg/kg", "ug/mL"),
        ([{"TIME": 0, "AMT": 15, "RATE": 1.5}], infusion(0.0271, 2000)),
        ((10, 60), (60, 1999)),
        [Figure("2", 1999, 10)],
    ),
    "quinidine": Design(
        ("h", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 201, "II": 6, "ADDL": 2}], infusion(1000 / 24, 1000, cmt=2)),
        ((3, 12), (10, 999)),
        [Figure("2", 999, 1000 / 24 / 13.8 * math.exp(0.502))],
        ({"AAG": 1}, {"AAG": 2}),
    ),
    "remifentanil": Design(
        ("min", "ug", "ng/mL"),
        ([{"TIME": 0, "AMT": 1400, "RATE": 70}], infusion(7, 4000)),
        ((5, 30), (10, 3999)),
        [Figure("2", 3999, 7 / (2.6 - 0.0162 * 20 + 0.0191 * -10))],
        ({"AGE": 40, "LBM": 55}, {"AGE": 60, "LBM": 45}),
    ),
    "vancomycin": Design(
        ("h", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 1000, "RATE": 1000, "II": 12, "ADDL": 3}], infusion(80, 1000)),
        ((1, 6, 11.9, 37, 47.9), (2, 24, 120, 999)),
        # 80 mg/h over 2.99 (1 + 0.0154 * 34) L/h, the clearance at 100 mL/min
        [Figure("2", 999, 80 / 4.555564)],
        ({"WT": 70, "CRCL": 50}, {"WT": 80, "CRCL": 100}),
    ),
    "gentamicin": Design(
        ("h", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 4, "RATE": 40, "II": 24, "ADDL": 1}], infusion(1, 4000)),
        ((0.5, 6, 23.9, 25), (2, 100, 3999)),
        [Figure("2", 3999, 1 / _GENTAMICIN)],
        (
            {"WT": 1.2, "PMA": 29, "PNA": 3, "CREAT": 70},
            {"WT": 3, "PMA": 40, "PNA": 5, "CREAT": 166.48 - 2.8488 * 40},
        ),
    ),
    "remifentanil_eeg": Design(
        ("min", "ug", "ng/mL"),
        ([{"TIME": 0, "AMT": 1500, "RATE": 150}], infusion(11.2 * 2.46, 4000)),
        ((2, 6, 12, 30), (10, 60, 3999)),
        # the concentration of half the effect: 20 Hz falls halfway to 5.62 Hz
        [Figure("2", 3999, 11.2), Figure("2", 3999, (20 + 5.62) / 2, "edge")],
        kinds=2,
    ),
    "propofol": Design(
        ("min", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 140}], infusion(10, 20000)),
        ((1, 5, 20, 120), (10, 120, 19999)),
        [Figure("2", 19999, 10 / (1.89 + 0.0456 * 3 - 0.0681 * -4 + 0.0264 * -7))],
        (
            {"AGE": 30, "WT": 60, "HT": 165, "LBM": 45},
            {"AGE": 60, "WT": 80, "HT": 170, "LBM": 55},
        ),
    ),
    "phenytoin": Design(
        ("h", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 300, "II": 24, "ADDL": 6}], infusion(300 / 24, 2000)),
        ((4, 23, 100, 167), (24, 240, 700, 1400, 1999)),
        # 300 mg a day: 300 KM / (415 - 300)
        [Figure("2", 1999, 300 * 5.7 / 115)],
        ({"WT": 55}, {"WT": 70}),
    ),
    "rifampicin": Design(
        ("h", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 600}], infusion(96, 100, cmt=2)),
        ((0.5, 1.5, 4, 10), (1, 8, 99)),
        [Figure("2", 99, 96 / 19.2 / 1.236)],
        ({"SDC": 0}, {"SDC": 1}),
    ),
    "rifampicin_induction": Design(
        ("h", "mg", "mg/L"),
        (
            [{"TIME": 0, "AMT": 600, "II": 24, "ADDL": 2}],
            infusion(10 * _SIZE**0.75 * _INDUCED * 5, 3000),
        ),
        ((1, 4, 12, 50), (12, 200, 2999)),
        [Figure("2", 2999, 5)],
        ({"WT": 60, "FFM": 45, "HIV": 1}, {"WT": 55, "FFM": 45, "HIV": 0}),
    ),
    "warfarin": Design(
        ("h", "mg", "mg/L"),
        ([{"TIME": 0, "AMT": 100}], infusion(0.131 * 1.17, 1500)),
        ((0.5, 6, 36, 120), (24, 1499)),
        # at C50 half of the complex is made; before the drug arrives all of it is there
        [
            Figure("2", 1499, 1.17),
            Figure("2", 1499, 95.9 / 2, "pca"),
            Figure("1", 0.5, 95.9, "pca"),
        ],
        ({"WT": 60}, {"WT": 70}),
        kinds=2,
    ),
    "paclitaxel": Design(
        ("h", "umol", "umol/L"),
        ([{"TIME": 0, "AMT": 370, "RATE": 370 / 3}], infusion(0.285, 2000)),
        ((3, 24, (240, 2), (500, 2)), (24, 400, 800, 1200, 1600, 1999)),
        # 1 nmol/L holds back a fraction 0.0289; leukocytes settle where feedback makes up for it
        [
            Figure("2", 1999, 0.001),
            Figure("2", 1999, 7.21 * (1 - 0.0289) ** (1 / 0.239), "cells"),
        ],
        kinds=2,
    ),
    "morphine": Design(
        ("min", "ug", "ng/mL"),
        ([{"TIME": 0, "AMT": 300}], infusion(1, 40000)),
        ((10, 60, 240), (60, 1000, 39999)),
        [
            Figure("2", 39999, 1000 / 3**1.44 / (3.09 + 0.408)),
            Figure("2", 39999, 1000 / 3**1.44 * 3.09 / 3.498 / 2.19, "m3g"),
            Figure("2", 39999, 1000 / 3**1.44 * 0.408 / 3.498 / 1.11, "m6g"),
        ],
        ({"WT": 8, "PNA": 200}, {"WT": 3, "PNA": 4}),
        kinds=3,
    ),
    "mavrilimumab": Design(
        ("day", "nmol", "nmol/L"),
        ([{"TIME": 0, "AMT": 467}], infusion(0.3 * 1.1 + 2.8 * 2.4 / 2, 600)),
        ((0.04, 7, 28, 60), (1, 28, 599)),
        # at KSS half of the target that is made leaves with the antibody
        [Figure("2", 599, 1.1)],
    ),
    "zanubrutinib": Design(
        ("h", "mg", "ng/mL"),
        ([{"TIME": 0, "AMT": 160, "II": 12, "ADDL": 1}], infusion(17, 500, cmt=2)),
        ((0.5, 2, 8, 14), (1, 20, 499)),
        # mg/L are 1000 ng/mL
        [Figure("2", 499, 1000 * 17 / 118 * (36 / 18) ** 0.189)],
        ({"ALT": 18, "HEALTHY": 0}, {"ALT": 36, "HEALTHY": 1}),
    ),
    "simulated_hepatic": Design(
        ("h", "mg", "ug/L"),
        ([{"TIME": 0, "AMT": 100}], infusion(0.54, 4000, cmt=2)),
        ((1, 4, 12, 48), (24, 3999)),
        # 0.54 mg/h over 6 L/h, 0.3 of it in class C and 0.3 of that with *2/*3; mg/L are 1000 ug/L
        [Figure("2", 3999, 1000 * 0.54 / (6 * 0.3 * 0.3))],
        (
            {"LIVER": 0, "BILI": 0.6, "ALB": 4.4, "INR": 1, "ASCITES": 0, "ENCEPH": 0, "CYP2C9": 4, "WT": 80},
            {"LIVER": 1, "BILI": 5, "ALB": 2.5, "INR": 2, "ASCITES": 2, "ENCEPH": 1, "CYP2C9": 1, "WT": 70},
        ),
    ),
    "warfarin_dose": Design(
        ("week", "mg", "mg/week"),
        ([], []),
        ((0,), (0,)),
        [],
        (
            {"CYP2C9": 2, "VKORC1": 2, "AGE": 65, "WT": 75, "HT": 170, "RACE": 0, "SITE": 1}
            | {"AMIODARONE": 0, "INDUCER": 2},
            {"CYP2C9": 0.5, "VKORC1": 0, "AGE": 35, "WT": 50, "HT": 150, "RACE": 1, "SITE": 0}
            | {"AMIODARONE": 1, "INDUCER": 1},
        ),
    ),
    "xenograft": Design(
        ("day", "mg/kg", "g"),
        ([{"TIME": 8, "AMT": 30, "II": 4, "ADDL": 2}], []),
        ((0, 8, 12, 20), (0, 4, 16, 24)),
        # untreated: exponential, then linear growth
        [
            Figure("2", 4, 0.055 * math.exp(0.273 * 4)),
            Figure("2", 16, 0.814 / 0.273 + 0.814 * (16 - _UNTIL_LINEAR), rel=0.02),
        ],
    ),
}  # fmt: skip
