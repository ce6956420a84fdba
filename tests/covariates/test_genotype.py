"""What does a genotype say of a person's enzyme? Diplotypes, CPIC's phenotypes, and ordered effects."""

import hashlib
import itertools
import tomllib
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from popk.covariates.genotype import monotone, phenotype, phenotype_levels, phenotypes
from popk.covariates.tables import genes

TABLES = resources.files("popk.covariates.tables")

# CPIC's assignments


# Caudle et al. (2020), doi:10.1111/cts.12692, with CPIC's activity values of 2024-03-25: *9, *10 and
# *41 0.25, *17 and *29 0.5.
CYP2D6 = [
    ("*1/*1", "Normal Metabolizer", 2),
    ("*1/*2", "Normal Metabolizer", 2),
    ("*1/*4", "Intermediate Metabolizer", 1),
    ("*4/*5", "Poor Metabolizer", 0),
    ("*1/*9", "Normal Metabolizer", 1.25),
    ("*1/*10", "Normal Metabolizer", 1.25),
    ("*10/*10", "Intermediate Metabolizer", 0.5),
    ("*1/*41", "Normal Metabolizer", 1.25),
    ("*4/*41", "Intermediate Metabolizer", 0.25),
    ("*17/*29", "Intermediate Metabolizer", 1),
    ("*1/*1x2", "Ultrarapid Metabolizer", 3),
    ("*2x2/*4", "Normal Metabolizer", 2),
    ("*1x2/*10", "Normal Metabolizer", 2.25),
    ("*1x2/*17", "Ultrarapid Metabolizer", 2.5),
    ("*4/*4x2", "Poor Metabolizer", 0),
]
# Theken et al. (2020), doi:10.1002/cpt.1830.
CYP2C9 = [
    ("*1/*1", "Normal Metabolizer", 2),
    ("*1/*2", "Intermediate Metabolizer", 1.5),
    ("*1/*8", "Intermediate Metabolizer", 1.5),
    ("*1/*3", "Intermediate Metabolizer", 1),
    ("*2/*2", "Intermediate Metabolizer", 1),
    ("*2/*3", "Poor Metabolizer", 0.5),
    ("*3/*3", "Poor Metabolizer", 0),
]
# Amstutz et al. (2018), doi:10.1002/cpt.911.
DPYD = [
    ("Reference/Reference", "Normal Metabolizer", 2),
    ("Reference/c.1905+1G>A (*2A)", "Intermediate Metabolizer", 1),
    ("Reference/c.2846A>T", "Intermediate Metabolizer", 1.5),
    ("c.2846A>T/c.2846A>T", "Intermediate Metabolizer", 1),
    ("c.1679T>G (*13)/c.2846A>T", "Poor Metabolizer", 0.5),
    ("c.1905+1G>A (*2A)/c.1905+1G>A (*2A)", "Poor Metabolizer", 0),
]
SCORED = [
    (gene, *row)
    for gene, rows in (("CYP2D6", CYP2D6), ("CYP2C9", CYP2C9), ("DPYD", DPYD))
    for row in rows
]

UNSCORED = {
    # Lee et al. (2022), doi:10.1002/cpt.2526.
    "CYP2C19": {
        "*17/*17": "Ultrarapid Metabolizer",
        "*1/*17": "Rapid Metabolizer",
        "*1/*1": "Normal Metabolizer",
        "*1/*9": "Likely Intermediate Metabolizer",
        "*1/*2": "Intermediate Metabolizer",
        "*2/*17": "Intermediate Metabolizer",
        "*2/*9": "Likely Poor Metabolizer",
        "*2/*3": "Poor Metabolizer",
    },
    # Desta et al. (2019), doi:10.1002/cpt.1477.
    "CYP2B6": {
        "*4/*4": "Ultrarapid Metabolizer",
        "*1/*4": "Rapid Metabolizer",
        "*1/*6": "Intermediate Metabolizer",
        "*6/*18": "Poor Metabolizer",
    },
    # Birdwell et al. (2015), doi:10.1002/cpt.113.
    "CYP3A5": {
        "*1/*1": "Normal Metabolizer",
        "*1/*3": "Intermediate Metabolizer",
        "*3/*6": "Poor Metabolizer",
    },
    # Relling et al. (2019), doi:10.1002/cpt.1304.
    "TPMT": {
        "*1/*3A": "Intermediate Metabolizer",
        "*3A/*3C": "Poor Metabolizer",
        "*3C/*8": "Possible Intermediate Metabolizer",
    },
    "NUDT15": {"*1/*3": "Intermediate Metabolizer", "*2/*3": "Poor Metabolizer"},
    # Gammal et al. (2016), doi:10.1002/cpt.269.
    "UGT1A1": {
        "*1/*36": "Normal Metabolizer",
        "*1/*28": "Intermediate Metabolizer",
        "*1/*80+*28": "Intermediate Metabolizer",
        "*28/*28": "Poor Metabolizer",
    },
    # Cooper-DeHoff et al. (2022), doi:10.1002/cpt.2557.
    "SLCO1B1": {
        "*1/*14": "Normal Function",
        "*14/*14": "Increased Function",
        "*1/*5": "Decreased Function",
        "*2/*5": "Possible Decreased Function",
        "*5/*15": "Poor Function",
    },
}

#: CPIC's activity values of CYP2D6 on 2024-03-25, from PharmCAT's copy of its table.
CPIC_2024 = {
    1: "1 2 27 33 34 35 39 45 46 48 53",
    0.5: "14 17 29 49 50 54 55 59",
    0.25: "9 10 32 41 52 91 109 119 132",
    0: "3 4 5 6 7 8 11 12 13 15 18 19 20 21 31 36 38 40 42 44 47 51 56 60 62 68 69 81 92 96 99 100 "
    "101 114 120 124 129 143 144 156 161",
}


@pytest.mark.parametrize(("gene", "diplotype", "expected", "score"), SCORED)
def test_a_diplotype_has_the_phenotype_and_the_activity_score_of_its_guideline(
    gene, diplotype, expected, score
):
    found = phenotype(gene, diplotype)
    assert (found.phenotype, found.activity_score) == (expected, score)


@pytest.mark.parametrize(
    ("gene", "diplotype", "expected"),
    [(gene, *row) for gene, rows in UNSCORED.items() for row in rows.items()],
)
def test_a_diplotype_of_a_gene_without_a_score_has_the_phenotype_of_its_guideline(
    gene, diplotype, expected
):
    found = phenotype(gene, diplotype)
    assert (found.phenotype, found.activity_score) == (expected, None)


def test_alleles_of_cyp2d6_have_the_activity_values_of_cpic():
    found = {name: a.value for name, a in genes()["CYP2D6"].alleles.items() if a.value is not None}
    expected = {f"*{star}": value for value, stars in CPIC_2024.items() for star in stars.split()}
    assert found == {**expected, "*57": 0}  # which CPIC no longer lists


def test_any_two_functions_of_a_gene_have_a_phenotype():
    for gene in genes().values():
        kinds = {(a.function, a.value): a.name for a in gene.alleles.values()}
        for pair in itertools.combinations_with_replacement(kinds.values(), 2):
            found = phenotype(gene.name, "/".join(pair))
            assert found.level in (*phenotype_levels(gene.name), None)
            assert (found.level is None) == (found.phenotype == "Indeterminate")


def test_an_allele_of_unknown_function_leaves_phenotype_and_score_open():
    found = phenotype("CYP2D6", "*1x2/*22")
    assert found.phenotype == "Indeterminate"
    assert found.level is None
    assert found.activity_score is None


# How a diplotype is written


def test_a_genotype_keeps_what_it_was_made_of():
    found = phenotype("CYP2D6", "*4/*2x2")
    assert found.gene == "CYP2D6"
    assert found.diplotype == "*2x2/*4"
    assert found.alleles == ("*2x2", "*4")
    assert found.version == "pypgx 0.27.0, CPIC 2024-03-25"
    assert found.note == ""
    with pytest.raises(AttributeError):
        found.gene = "CYP2C9"  # type: ignore[misc]


def test_the_order_of_alleles_does_not_matter():
    for gene, diplotype, _, _ in SCORED:
        first, second = diplotype.split("/")
        assert phenotype(gene, f"{second}/{first}") == phenotype(gene, f"{first}/{second}")


def test_genes_in_tandem_add_their_activity_values():
    assert phenotype("CYP2D6", "*36+*10/*1").activity_score == 1.25
    assert phenotype("CYP2D6", "*1/*10x2+*36").activity_score == 1.5
    assert phenotype("CYP2D6", "*68+*4/*2").activity_score == 1


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("*1/*2A", "Reference/c.1905+1G>A (*2A)"),
        ("*1/c.1905+1G>A", "Reference/c.1905+1G>A (*2A)"),
        ("Reference/HapB3", "Reference/c.1129-5923C>G, c.1236G>A (HapB3)"),
        ("Reference/c.1236G>A", "Reference/c.1129-5923C>G, c.1236G>A (HapB3)"),
    ],
)
def test_a_dpyd_variant_is_known_by_its_star_and_by_its_change(short, full):
    found = phenotype("DPYD", short)
    assert found == phenotype("DPYD", full)._replace(note=found.note)
    assert found.note == f"{short} is read as {full}"


@pytest.mark.parametrize(
    ("given", "level"),
    [
        *[("G/G", "G/G"), ("A/G", "G/A"), ("G/A", "G/A"), ("A/A", "A/A")],
        *[("C/C", "G/G"), ("C/T", "G/A"), ("T/C", "G/A"), ("T/T", "A/A")],
    ],
)
def test_vkorc1_is_read_on_either_strand_and_says_so(given, level):
    found = phenotype("VKORC1", given)
    assert (found.diplotype, found.level, found.phenotype) == (level, level, f"-1639 {level}")
    assert ("strand" in found.note) == (given in ("C/C", "C/T", "T/C", "T/T"))


# What is refused


@pytest.mark.parametrize(
    ("gene", "diplotype", "says"),
    [
        ("CYP2D", "*1/*1", "'CYP2D' is not a gene of the tables; .* the nearest are CYP2D6"),
        ("cyp2d6", "*1/*1", "'cyp2d6' is not a gene"),
        ("CYP2D6", "*1/*999", r"'\*999' is not an allele of CYP2D6 in pypgx .* \*99"),
        ("CYP2D6", "*1/*4.001", r"'\*4.001' is not an allele .* the nearest are \*4$"),
        ("CYP2C19", "*1/*2x2", r"'\*2x2' is not an allele .* \(copies are read for CYP2D6 alone\)"),
        ("CYP2C19", "*1/*2+*3", r"'\*2\+\*3' is not an allele of CYP2C19"),
        ("CYP2D6", "*1xN/*2", r"\*1xN does not say how many copies .* from 2 to 13, as in \*1x2"),
        ("CYP2D6", "*1/*1x1", r"\*1x1 does not say how many"),
        ("CYP2D6", "*1/*1x14", r"\*1x14 does not say how many"),
        ("CYP2D6", "*1/*1x", r"\*1x does not say how many"),
        ("CYP2D6", "*1/*5x2", r"\*5x2 copies a deleted gene"),
        ("CYP2D6", "*1/*999x2", r"'\*999' is not an allele"),
        ("CYP2D6", "*1/+*2", r"'\+\*2' is not an allele"),
        ("CYP2C9", "*1", r"'\*1' is not a diplotype of CYP2C9; give two alleles with one slash"),
        ("CYP2C9", "*1/*2/*3", "is not a diplotype"),
        ("CYP2C9", "*1/", "is not a diplotype"),
        ("CYP2C9", "*1 / *2", "no blanks around them"),
        ("CYP2C9", "*1/*2\n", "no blanks around them"),
        ("CYP2C9", "", "is not a diplotype"),
        ("CYP2C9", "1/2", "'1' is not an allele"),
        ("VKORC1", "A/T", "'A/T' mixes the strands of VKORC1; give G/G, G/A or A/A"),
        ("VKORC1", "g/a", "'g' is not an allele of VKORC1"),
        ("VKORC1", "GA", "'GA' is not a diplotype of VKORC1"),
    ],
)
def test_what_is_no_diplotype_of_the_tables_is_refused_by_name(gene, diplotype, says):
    with pytest.raises(ValueError, match=says):
        phenotype(gene, diplotype)


# A column


def test_a_column_becomes_codes_in_the_order_of_activity_and_scores():
    found = phenotypes("CYP2D6", ["*1/*1x2", "*4/*4", "*1/*4", "*1/*1"])
    assert found.levels == ("poor", "intermediate", "normal", "ultrarapid")
    np.testing.assert_array_equal(found.code, [3, 0, 1, 2])
    np.testing.assert_array_equal(found.activity_score, [3.0, 0.0, 1.0, 2.0])
    assert found.version == phenotype("CYP2D6", "*1/*1").version


def test_the_levels_of_a_gene_are_ordered_from_the_least_activity():
    assert {gene: phenotype_levels(gene) for gene in genes()} == {
        **dict.fromkeys(
            ("CYP2C9", "CYP3A5", "DPYD", "NUDT15", "TPMT", "UGT1A1"),
            ("poor", "intermediate", "normal"),
        ),
        **dict.fromkeys(
            ("CYP2B6", "CYP2C19"), ("poor", "intermediate", "normal", "rapid", "ultrarapid")
        ),
        "CYP2D6": ("poor", "intermediate", "normal", "ultrarapid"),
        "SLCO1B1": ("poor", "decreased", "normal", "increased"),
        "VKORC1": ("A/A", "G/A", "G/G"),
    }


def test_likely_and_possible_phenotypes_have_the_level_of_the_phenotype():
    assert phenotype("CYP2C19", "*2/*9").level == "poor"
    assert phenotype("CYP2C19", "*1/*9").level == "intermediate"
    assert phenotype("TPMT", "*3C/*8").level == "intermediate"


def test_a_column_of_a_gene_without_a_score_has_none():
    found = phenotypes("VKORC1", pd.Series(["A/G", "C/C", "A/A"]))
    np.testing.assert_array_equal(found.code, [1, 2, 0])
    assert found.activity_score is None


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, "", ".", "NA", "./."])
def test_a_row_without_a_diplotype_is_named(missing):
    with pytest.raises(ValueError, match=r"^rows 2, 4: CYP2C9 has no diplotype; leave the patient"):
        phenotypes("CYP2C9", ["*1/*1", missing, "*1/*2", missing])


def test_all_rows_that_cannot_be_used_are_named_together():
    with pytest.raises(ValueError, match="row") as caught:
        phenotypes("CYP2C9", ["*1/*77", "*1/*7", "*1/*1", ".", *["*1"] * 12])
    first, second, third, fourth = str(caught.value).splitlines()
    assert first.startswith("row 1: '*77' is not an allele of CYP2C9")
    assert second.startswith("row 2: CYP2C9 *1/*7 is indeterminate, and has no level")
    assert third.startswith("row 4: CYP2C9 has no diplotype")
    assert fourth.startswith("rows 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 2 more: '*1' is not a")


# Ordered effects


def test_a_monotone_factor_is_1_at_the_reference_and_grows_by_its_increments():
    steps = [0.5, 0.25, 1.0]
    found = monotone(np.array([0, 1, 2, 3]), steps, reference=2)
    np.testing.assert_allclose(found, np.exp([-0.75, -0.25, 0.0, 1.0]), rtol=1e-15)


def test_a_monotone_factor_with_increments_of_0_is_1_everywhere():
    found = monotone(np.array([[0, 1], [2, 1]]), [0.0, 0.0], reference=0)
    np.testing.assert_array_equal(found, np.ones((2, 2)))


def test_a_monotone_factor_can_be_differentiated_and_compiled():
    codes = jnp.array([0, 2])

    def factors(steps):
        return monotone(codes, steps, reference=1)

    steps = jnp.array([0.5, 0.25])
    np.testing.assert_allclose(jax.jit(factors)(steps), np.exp([-0.5, 0.25]), rtol=1e-15)
    expected = [[-np.exp(-0.5), 0.0], [0.0, np.exp(0.25)]]
    np.testing.assert_allclose(jax.jacobian(factors)(steps), expected, rtol=1e-15)


def test_increments_may_be_sampled_one_by_one():
    found = jax.jit(lambda a, b: monotone(np.array([0, 2]), [a, b], reference=0))(0.5, 0.25)
    np.testing.assert_allclose(found, np.exp([0.0, 0.75]), rtol=1e-15)


@pytest.mark.parametrize(
    ("code", "increments", "reference", "says"),
    [
        ([0, 3], [0.1, 0.2], 0, "code 3 is not that of a level; give whole numbers from 0 to 2"),
        ([-1, 0], [0.1], 0, "code -1 is not that of a level"),
        ([0.0, 1.0], [0.1], 0, "code is of type float64; give whole numbers from 0 to 1"),
        ([0, 1], [0.1, -0.2], 0, "give finite ones that are not negative"),
        ([0, 1], [0.1, np.nan], 0, "give finite ones that are not negative"),
        ([0, 1], [0.1, np.inf], 0, "give finite ones that are not negative"),
        ([0, 1], [], 0, "must be a list of one number or more"),
        ([0, 1], [[0.1]], 0, r"have the shape \(1, 1\)"),
        ([0, 1], [0.1], 2, "reference is 2; give the number of a level, from 0 to 1"),
        ([0, 1], [0.1], -1, "reference is -1"),
    ],
)
def test_a_monotone_factor_refuses_what_is_no_level_or_would_fall(
    code, increments, reference, says
):
    with pytest.raises(ValueError, match=says):
        monotone(np.array(code), increments, reference)


def test_what_is_wrong_within_a_compiled_function_is_nan():
    factors = jax.jit(lambda codes, steps: monotone(codes, steps, reference=1))
    found = factors(jnp.array([-1, 0, 2, 3]), jnp.array([0.5, 0.25]))
    np.testing.assert_array_equal(np.isnan(found), [True, False, False, True])
    assert np.isnan(factors(jnp.array([0, 1, 2]), jnp.array([0.5, -0.25]))).any()


# The tables


def test_the_tables_are_the_ones_that_were_exported():
    text = tomllib.loads(TABLES.joinpath("genotype.toml").read_text(encoding="utf-8"))
    found = {
        name: hashlib.sha256(TABLES.joinpath(name).read_bytes()).hexdigest()
        for name in text["sha256"]
    }
    assert found == text["sha256"]
    assert set(text["guidelines"]) == set(genes())
    assert TABLES.joinpath(text["licence_text"]).is_file()
