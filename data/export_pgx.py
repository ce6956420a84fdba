"""Writes the genotype tables of popk/covariates/tables from those that the package pypgx carries.

    uv venv pgx && uv pip install --python pgx pypgx==0.27.0
    pgx/bin/python data/export_pgx.py             # from the root of the repository
    pgx/bin/python data/export_pgx.py elsewhere   # into another folder

pypgx lists some 3,400 diplotypes of these genes with their phenotypes. All of them follow from what
the two alleles do: phenotypes.csv keeps that rule, and the export stops where a diplotype departs from
it. What CPIC said of an allele since stands in REVISED, in place of pypgx's. "." is no value.
"""

import csv
import hashlib
import importlib.metadata
import re
import sys
from collections.abc import Iterable
from pathlib import Path

GENES = (
    "CYP2B6",
    "CYP2C19",
    "CYP2C9",
    "CYP2D6",
    "CYP3A5",
    "DPYD",
    "NUDT15",
    "SLCO1B1",
    "TPMT",
    "UGT1A1",
)
FUNCTIONS = ("No", "Decreased", "Normal", "Increased", "Uncertain", "Unknown")

#: CPIC's functions and activity values on a date, where pypgx has others or lacks the allele.
REVISED = {
    ("CYP2C19", "CPIC 2023-09-01"): {("Uncertain", "."): "*39"},
    ("CYP2D6", "CPIC 2024-03-25"): {
        ("Normal", "1"): "*27",
        ("Decreased", "0.25"): "*9 *32 *41 *52 *91 *109 *119 *132",
        ("No", "0"): "*144 *156 *161",
        ("Uncertain", "."): "*131 *146 *147 *154 *162",
        ("Unknown", "."): "*122 *127 *139 *148 *149 *152 *153 *155 *157 *158 *159 *160 *163",
    },
}

#: Diplotypes of pypgx with an allele that its own table of alleles does not have.
WITHOUT_ALLELE = {("CYP2B6", "*15/*15c")}


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of one of pypgx's tables that are about the genes."""
    place = importlib.metadata.distribution("pypgx").locate_file(f"pypgx/api/data/{name}-table.csv")
    with Path(str(place)).open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["Gene"] in GENES]


def star(allele: str) -> tuple[float, str]:
    """Return what alleles are sorted by: the number of a star or the position of a variant."""
    number = re.search(r"\d+", allele)
    return (float(number.group()) if number else -1.0, allele)


def alleles() -> list[list[str]]:
    """Return gene, allele, function, activity value and source of each allele."""
    version = f"pypgx {importlib.metadata.version('pypgx')}"
    known = {
        (row["Gene"], row["StarAllele"]): (
            row["Function"].removesuffix(" Function"),
            row["ActivityScore"].replace("N/A", "."),
            version,
        )
        for row in read("allele")
    }
    for (gene, date), revised in REVISED.items():
        for value, stars in revised.items():
            known |= {(gene, allele): (*value, date) for allele in stars.split()}
    ordered = sorted(known, key=lambda key: (key[0], star(key[1])))
    assert all(known[key][0] in FUNCTIONS for key in ordered)
    return [[*key, *known[key]] for key in ordered]


def phenotypes() -> list[list[str]]:
    """Return the phenotype of each pair of functions, where a gene has no activity score."""
    function = {(r["Gene"], r["StarAllele"]): r["Function"].split()[0] for r in read("allele")}
    rules: dict[tuple[str, str, str], str] = {}
    for row in read("diplotype"):
        gene, diplotype = row["Gene"], row["Diplotype"]
        if (gene, diplotype) in WITHOUT_ALLELE:
            continue
        first, second = sorted(
            (function[gene, allele] for allele in diplotype.split("/")), key=FUNCTIONS.index
        )
        found = rules.setdefault((gene, first, second), row["Phenotype"])
        assert found == row["Phenotype"], f"{gene} {diplotype} departs from its functions' rule"
    return [[*key, rules[key]] for key in sorted(rules)]


def scores() -> list[list[str]]:
    """Return the activity scores of each phenotype: from the least, to below the next one's."""
    rows = []
    for row in read("equation"):
        equation = row["Equation"]
        found = re.fullmatch(r"(?:([\d.]+) <= score(?: < ([\d.]+))?)|(?:(2) == score)", equation)
        assert found, equation
        # "2 == score" stands for a gene without duplications, whose scores end at 2.
        rows.append([row["Gene"], row["Phenotype"], found[1] or found[3], found[2] or "."])
    return sorted(rows, key=lambda row: (row[0], float(row[2])))


def write(path: Path, head: str, rows: Iterable[list[str]]) -> None:
    """Write one table, with LF on every system, and print its SHA-256."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head.split(","))
        table.writerows(rows)
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "popk/covariates/tables")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "alleles.csv", "gene,allele,function,value,source", alleles())
    write(folder / "phenotypes.csv", "gene,function_a,function_b,phenotype", phenotypes())
    write(folder / "scores.csv", "gene,phenotype,least,below", scores())
