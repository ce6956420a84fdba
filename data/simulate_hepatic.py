"""Writes data/simulated_hepatic.csv: a study of hepatic impairment and genotype that never took place.

    python data/simulate_hepatic.py             # from the root of the repository; NumPy alone
    python data/simulate_hepatic.py elsewhere   # into another folder

Ten subjects each with normal function and in the Child-Pugh classes A, B and C, as FDA's guidance of
2003 on such studies has it, take one oral dose of a drug that CYP2C9 clears; genotypes are enriched,
half with normal, three with intermediate and two with poor metabolism in each group. Levels follow
from the closed form of one compartment with first-order absorption and the values in TRUTH.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

SEED = 20261123
DOSE = 100.0  # mg
TIMES = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 24, 36, 48)  # h
GROUPS = ("normal", "A", "B", "C")

#: Of a subject of 70 kg with normal hepatic function and normal metabolism; L/h, L, 1/h.
TRUTH = {"CL": 6.0, "V": 45.0, "KA": 1.2, "omega_CL": 0.25, "omega_V": 0.2, "omega_KA": 0.4,
         "sigma_log": 0.12}  # fmt: skip
#: What clearance is multiplied by.
IMPAIRED = {"normal": 1.0, "A": 0.8, "B": 0.5, "C": 0.3}
METABOLISM = {"normal": 1.0, "intermediate": 0.65, "poor": 0.3}

#: The codes of CYP2C9: diplotype, activity score (CPIC) and metabolism.
DIPLOTYPES = (
    ("*3/*3", 0.0, "poor"),
    ("*2/*3", 0.5, "poor"),
    ("*1/*3", 1.0, "intermediate"),
    ("*1/*2", 1.5, "intermediate"),
    ("*1/*1", 2.0, "normal"),
)
ENRICHED = (4, 4, 4, 4, 4, 3, 3, 2, 1, 0)  # the codes of a group's ten subjects

#: Median and standard deviation of the logarithm of bilirubin [mg/dL], albumin [g/dL] and INR, and
#: the probability of each grade of ascites (0 to 3) and encephalopathy (0 to 4).
LIVER = {
    "normal": ((0.6, 0.3), (4.4, 0.06), (1.0, 0.05), (1, 0, 0, 0), (1, 0, 0, 0, 0)),
    "A": ((1.2, 0.4), (3.8, 0.08), (1.2, 0.1), (0.85, 0.15, 0, 0), (0.95, 0.05, 0, 0, 0)),
    "B": ((2.3, 0.4), (3.1, 0.1), (1.6, 0.15), (0.3, 0.5, 0.2, 0), (0.6, 0.3, 0.1, 0, 0)),
    "C": ((4.5, 0.5), (2.5, 0.1), (2.2, 0.2), (0.1, 0.3, 0.4, 0.2), (0.2, 0.4, 0.3, 0.1, 0)),
}
LLOQ = 1.0  # ug/L
COLUMNS = "ID,TIME,EVID,AMT,DV,MDV,BLQ,LLOQ,LIVER,BILI,ALB,INR,ASCITES,ENCEPH,CYP2C9,WT,SEX,AGE"


def child_pugh(bilirubin, albumin, INR, ascites, encephalopathy):
    """Return the class of five components: Pugh RNH et al. (1973), doi:10.1002/bjs.1800600817."""
    points = (
        1 + (bilirubin >= 2) + (bilirubin > 3)
        + 1 + (albumin <= 3.5) + (albumin < 2.8)
        + 1 + (INR >= 1.7) + (INR > 2.3)
        + 1 + (ascites >= 1) + (ascites > 1)
        + 1 + (encephalopathy >= 1) + (encephalopathy > 2)
    )  # fmt: skip
    return "A" if points <= 6 else "B" if points <= 9 else "C"


def liver(draw, group):
    """Return the five components of a subject of a group, drawn until they are of its class."""
    *sizes, ascites, encephalopathy = LIVER[group]
    while True:
        numbers = [round(m * np.exp(s * draw.standard_normal()), 1) for m, s in sizes]
        grades = [int(np.searchsorted(np.cumsum(p), draw.random(), side="right"))
                  for p in (ascites, encephalopathy)]  # fmt: skip
        own = child_pugh(*numbers, *grades)
        if own == group or (group == "normal" and own == "A" and sum(grades) == 0):
            return [*numbers, *grades]


def subject(draw, group, code):
    """Return the covariates of a subject, in the order of the columns."""
    male = int(draw.random() < 0.6)
    weight = (80 if male else 68) * np.exp(np.clip(0.15 * draw.standard_normal(), -0.3, 0.3))
    age = int(np.clip(round(54 + 9 * draw.standard_normal()), 25, 75))
    return [int(group != "normal"), *liver(draw, group), code, round(weight, 1), male, age]


def levels(draw, group, code, weight):
    """Return a subject's levels [ug/L] after one oral dose."""
    eta = draw.standard_normal(3) * [TRUTH["omega_CL"], TRUTH["omega_V"], TRUTH["omega_KA"]]
    factor = IMPAIRED[group] * METABOLISM[DIPLOTYPES[code][2]]
    CL = TRUTH["CL"] * (weight / 70) ** 0.75 * factor * np.exp(eta[0])
    V, KA = TRUTH["V"] * weight / 70 * np.exp(eta[1]), TRUTH["KA"] * np.exp(eta[2])
    t, k = np.asarray(TIMES), CL / V
    C = 1000 * DOSE / V * KA / (KA - k) * (np.exp(-k * t) - np.exp(-KA * t))
    return C * np.exp(TRUTH["sigma_log"] * draw.standard_normal(len(t)))


def rows():
    """Return the lines of the table, without its header."""
    draw, ID = np.random.default_rng(SEED), 0
    for group in GROUPS:
        for code in ENRICHED:
            ID += 1
            own = subject(draw, group, code)
            tail = ",".join(map(str, own))
            yield f"{ID},0,1,{DOSE:g},.,1,0,.,{tail}"
            found = levels(draw, group, code, own[7])
            for time, level in zip(TIMES, found, strict=True):
                # four digits: no platform's last bit shows
                DV, below = (f"{level:.4g}", 0) if level >= LLOQ else (".", 1)
                yield f"{ID},{time:g},0,.,{DV},0,{below},{LLOQ:g},{tail}"


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    folder.mkdir(parents=True, exist_ok=True)
    content = ("\n".join([COLUMNS, *rows()]) + "\n").encode()
    (folder / "simulated_hepatic.csv").write_bytes(content)
    print(hashlib.sha256(content).hexdigest(), "simulated_hepatic.csv")
