"""What does each allele of a gene do, and what follows from two of them? CPIC's tables, as read."""

import csv
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple


class Haplotype(NamedTuple):
    """What one chromosome carries.

    Attributes
    ----------
    place : int
        Where it stands in the table, by which the alleles of a diplotype are sorted.
    name : str
    function : str
        What it does: No, Decreased, Normal, Increased, Uncertain or Unknown.
    value : float or None
        Its activity value [1]; None where it has none.
    """

    place: int
    name: str
    function: str
    value: float | None


class Gene(NamedTuple):
    """The tables of one gene.

    Attributes
    ----------
    name : str
    alleles : dict of str to Haplotype
        By each name that an allele goes by.
    pairs : dict of tuple of str to str
        The phenotype of two functions, where the gene has no activity score.
    scores : list of tuple
        The least activity score [1] of each phenotype, ascending, where it has one.
    version : str
        Where the tables come from, and from when.
    """

    name: str
    alleles: dict[str, Haplotype]
    pairs: dict[tuple[str, str], str]
    scores: list[tuple[float, str]]
    version: str


@cache
def genes() -> dict[str, Gene]:
    """Return the tables of each gene, read once."""
    found = {"VKORC1": _vkorc1()}
    for place, row in enumerate(_rows("alleles.csv")):
        gene = found.setdefault(row["gene"], Gene(row["gene"], {}, {}, [], row["source"]))
        if row["source"] not in gene.version:
            found[row["gene"]] = gene._replace(version=f"{gene.version}, {row['source']}")
        value = None if row["value"] == "." else float(row["value"])
        allele = Haplotype(place, row["allele"], row["function"], value)
        for name in (row["allele"], *_aliases(row["gene"], row["allele"])):
            gene.alleles[name] = allele
    for row in _rows("phenotypes.csv"):
        found[row["gene"]].pairs[row["function_a"], row["function_b"]] = row["phenotype"]
    for row in _rows("scores.csv"):
        found[row["gene"]].scores.append((float(row["least"]), row["phenotype"]))
    return found


def _rows(table: str) -> Iterator[dict[str, str]]:
    place = resources.files("popk.covariates.tables").joinpath(table)
    yield from csv.DictReader(place.read_text(encoding="utf-8").splitlines())


def _aliases(gene: str, allele: str) -> list[str]:
    """Return the other names of an allele: a DPYD variant's star number, and parts of HapB3."""
    if gene != "DPYD":
        return []
    named = re.fullmatch(r"(.+) \((.+)\)", allele)
    return ["*1"] if allele == "Reference" else [*named[1].split(", "), named[2]] if named else []


def _vkorc1() -> Gene:
    """Return rs9923231, -1639 G>A; the gene lies on the reverse strand, so it is also C>T."""
    major, minor = Haplotype(0, "G", "G", None), Haplotype(1, "A", "A", None)
    pairs = {("G", "G"): "-1639 G/G", ("G", "A"): "-1639 G/A", ("A", "A"): "-1639 A/A"}
    alleles = {"G": major, "A": minor, "C": major, "T": minor}
    return Gene("VKORC1", alleles, pairs, [], "CPIC 2017, rs9923231")
