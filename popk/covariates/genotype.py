r"""What does a genotype say of a person's enzyme? Diplotypes, CPIC's phenotypes, and ordered effects.

A diplotype is written as PharmVar and CPIC write it: two alleles with a slash between them, ``*1/*4``;
copies of a CYP2D6 gene as ``*2x2/*4``, and different genes on one chromosome as ``*36+*10/*1``. For
CYP2D6, CYP2C9 and DPYD each allele has an activity value; those of both chromosomes add up to the
activity score, from which the phenotype follows. For the other genes the phenotype follows from what
each allele does.

The tables are those of the package pypgx with some later values of CPIC; ``tables/genotype.toml`` says
which, from when, and by which guideline. They are for models, not for the treatment of a patient.
"""

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from popk.covariates.tables import Gene, Haplotype, genes
from popk.reasons import refusing

INDETERMINATE = "Indeterminate"

#: The names of levels, from the least activity to the greatest; VKORC1's by how much is expressed.
_ORDER = (
    *("poor", "intermediate", "decreased", "normal", "rapid", "increased", "ultrarapid"),
    *("A/A", "G/A", "G/G"),
)
#: What alleles do, in the order of the pairs of phenotypes.csv; VKORC1's are their own functions.
_FUNCTIONS = ("No", "Decreased", "Normal", "Increased", "Uncertain", "Unknown", "G", "A")

_MISSING = ("", ".", "./.", "NA", "NaN", "nan", "None", "<NA>")
_NAMED = 10  # as many rows as an error names

# Chromosomes with 1, 2, 3, 4, 5 or 13 CYP2D6 genes are known: Lundqvist E, Johansson I,
# Ingelman-Sundberg M (1999), Gene 226:327-338, PMID 9931507, doi:10.1016/S0378-1119(98)00567-8.
_MOST_COPIES = 13


class Genotype(NamedTuple):
    """A diplotype, and what CPIC says of it.

    Attributes
    ----------
    gene : str
    diplotype : str
        As the table writes it, the lower number first, whatever order it was given in.
    alleles : tuple of str
        What each of the two chromosomes carries.
    phenotype : str
        CPIC's term, ``"Likely Intermediate Metabolizer"``; ``"Indeterminate"`` where an allele's
        function is not known well enough.
    level : str or None
        The phenotype's place among `phenotype_levels`; None where it is indeterminate. CPIC's
        "likely" and "possible" phenotypes have the level of the phenotype itself.
    activity_score : float or None
        The sum of the activity values [1]; None where CPIC defines none, or an allele has no value.
    version : str
        Where the gene's table comes from, and from when.
    note : str
        How the diplotype was read, where it was not as it was written.
    """

    gene: str
    diplotype: str
    alleles: tuple[str, str]
    phenotype: str
    level: str | None
    activity_score: float | None
    version: str
    note: str = ""


class Phenotypes(NamedTuple):
    """The phenotypes of a column of diplotypes.

    Attributes
    ----------
    gene : str
    levels : tuple of str
        The gene's levels, from the least activity to the greatest.
    code : Int[ndarray, "row"]
        Each row's place among `levels`, from 0.
    activity_score : Float[ndarray, "row"] or None
        Each row's activity score [1]; None where CPIC defines none for the gene.
    version : str
        Where the gene's table comes from, and from when.
    """

    gene: str
    levels: tuple[str, ...]
    code: Int[np.ndarray, " row"]
    activity_score: Float[np.ndarray, " row"] | None
    version: str


def _gene(name: str) -> Gene:
    known = genes()
    if name not in known:
        raise ValueError(_unknown(f"{name!r} is not a gene of the tables", name, known))
    return known[name]


def _unknown(sentence: str, given: str, known: Collection[str]) -> str:
    core = given.split(".")[0]  # PharmVar's *4.001 is a suballele of *4
    nearest = difflib.get_close_matches(given, list(known), n=3, cutoff=0.0)
    nearest = [core] if core != given and core in known else nearest
    return f"{sentence}; give one that is known, the nearest are {', '.join(nearest)}"


def _haplotype(gene: Gene, text: str) -> Haplotype:
    """Return what one chromosome carries; a chromosome of CYP2D6 may carry several genes."""
    if text in gene.alleles:
        return gene.alleles[text]
    parts = [re.fullmatch(r"(\*\d+)(?:x(.*))?", part) for part in text.split("+")]
    if gene.name != "CYP2D6" or None in parts or not any(sign in text for sign in "x+"):
        only = " (copies are read for CYP2D6 alone)" if "x" in text and None not in parts else ""
        sentence = f"{text!r} is not an allele of {gene.name} in {gene.version}{only}"
        raise ValueError(_unknown(sentence, text, gene.alleles))
    found = [_copies(gene, part[1], part[2]) for part in parts if part]
    values = [part.value for part in found]
    total = None if None in values else sum(value for value in values if value is not None)
    return Haplotype(found[0].place, text, "", total)


def _copies(gene: Gene, allele: str, copies: str | None) -> Haplotype:
    """Return so many copies of one allele."""
    found = _haplotype(gene, allele)
    if copies is None:
        return found
    if not re.fullmatch(r"[1-9]\d?", copies) or not 2 <= int(copies) <= _MOST_COPIES:
        raise ValueError(
            f"{allele}x{copies} does not say how many copies there are; give a whole number from 2 to "
            f"{_MOST_COPIES}, as in {allele}x2"
        )
    if allele == "*5":
        raise ValueError(f"*5x{copies} copies a deleted gene; give *5, or the allele that is there")
    return found._replace(value=None if found.value is None else int(copies) * found.value)


def _halves(gene: str, diplotype: str) -> tuple[str, str]:
    halves = diplotype.split("/")
    if len(halves) != 2 or not all(halves) or re.search(r"\s/|/\s|^\s|\s$", diplotype):
        raise ValueError(
            f"{diplotype!r} is not a diplotype of {gene}; give two alleles with one slash between them "
            f"and no blanks around them, as in {'G/A' if gene == 'VKORC1' else '*1/*4'}"
        )
    return halves[0], halves[1]


def _refuse_mixed_strands(texts: tuple[str, str]) -> None:
    if len({text in "CT" for text in texts}) > 1:
        raise ValueError(
            f"{'/'.join(texts)!r} mixes the strands of VKORC1; give G/G, G/A or A/A on the gene's strand, "
            f"or C/C, C/T or T/T on the forward strand"
        )


def phenotype(gene: str, diplotype: str) -> Genotype:
    r"""Return a diplotype with the phenotype that CPIC assigns to it.

    The activity score is :math:`AS = \sum_i n_i a_i`, over the genes that both chromosomes carry,
    with n copies of activity value a each. CYP2D6: poor 0, intermediate below 1.25, normal to 2.25,
    ultrarapid above. CYP2C9 and DPYD: poor 0 or 0.5, intermediate 1 or 1.5, normal 2.

    Parameters
    ----------
    gene : str
        CYP2B6, CYP2C19, CYP2C9, CYP2D6, CYP3A5, DPYD, NUDT15, SLCO1B1, TPMT, UGT1A1 or VKORC1.
    diplotype : str
        Two alleles, ``"*1/*4"``, in any order. CYP2D6: copies as ``*2x2``, and several genes as
        ``*36+*10``. DPYD: CPIC's names of variants, their parts or their stars, ``"*1/*2A"``. VKORC1:
        rs9923231, -1639 G>A, as ``"G/A"``, or on the forward strand as ``"C/T"``.

    Raises
    ------
    ValueError
        The gene or an allele is not in the tables, or the text is not a diplotype.

    References
    ----------
    .. [1] Caudle KE, Sangkuhl K, Whirl-Carrillo M, et al. (2020). Standardizing CYP2D6 genotype to
       phenotype translation. Clin Transl Sci 13:116-124. doi:10.1111/cts.12692
    .. [2] Theken KN, Lee CR, Gong L, et al. (2020). CPIC guideline for CYP2C9 and nonsteroidal
       anti-inflammatory drugs. Clin Pharmacol Ther 108:191-200. doi:10.1002/cpt.1830
    .. [3] Amstutz U, Henricks LM, Offer SM, et al. (2018). CPIC guideline for dihydropyrimidine
       dehydrogenase genotype and fluoropyrimidine dosing: 2017 update. Clin Pharmacol Ther
       103:210-216. doi:10.1002/cpt.911

    Examples
    --------
    >>> found = phenotype("CYP2D6", "*2x2/*4")
    >>> found.phenotype, found.activity_score
    ('Normal Metabolizer', 2.0)
    >>> phenotype("VKORC1", "C/T").diplotype
    'G/A'
    """
    table = _gene(gene)
    texts = _halves(gene, diplotype)
    first, second = sorted(_haplotype(table, text) for text in texts)
    score, names = None, (first.name, second.name)
    if not table.scores:
        functions = sorted((first.function, second.function), key=_FUNCTIONS.index)
        assigned = table.pairs[functions[0], functions[1]]
    elif first.value is None or second.value is None:
        assigned = INDETERMINATE
    else:
        score = first.value + second.value
        assigned = [name for least, name in table.scores if score >= least][-1]
    note = f"{diplotype} is read as {'/'.join(names)}" if set(texts) - set(names) else ""
    if gene == "VKORC1":
        _refuse_mixed_strands(texts)
        note += ", from the forward strand to the gene's" if note else ""
    level = None if assigned == INDETERMINATE else _level(assigned)
    return Genotype(gene, "/".join(names), names, assigned, level, score, table.version, note)


def _level(assigned: str) -> str:
    if assigned.startswith("-1639 "):
        return assigned.removeprefix("-1639 ")
    words = assigned.removeprefix("Likely ").removeprefix("Possible ")
    return words.removesuffix(" Metabolizer").removesuffix(" Function").lower()


def phenotype_levels(gene: str) -> tuple[str, ...]:
    """Return the levels of a gene's phenotypes, from the least activity to the greatest.

    Parameters
    ----------
    gene : str
        As in `phenotype`.

    Raises
    ------
    ValueError
        The gene is not in the tables.

    Examples
    --------
    >>> phenotype_levels("CYP2D6")
    ('poor', 'intermediate', 'normal', 'ultrarapid')
    """
    table = _gene(gene)
    assigned = [*table.pairs.values(), *(name for _, name in table.scores)]
    present = {_level(name) for name in assigned if name != INDETERMINATE}
    return tuple(sorted(present, key=_ORDER.index))


def phenotypes(gene: str, diplotypes: Iterable[Any]) -> Phenotypes:
    """Return the phenotypes of a column of diplotypes, as codes for a model.

    Parameters
    ----------
    gene : str
        As in `phenotype`.
    diplotypes : iterable of str
        One diplotype a row.

    Raises
    ------
    ValueError
        The gene is not in the tables. Or a row has no diplotype, one that cannot be read, or one whose
        phenotype is indeterminate: all such rows are named together, counted from 1.

    Examples
    --------
    >>> phenotypes("CYP2C9", ["*1/*1", "*1/*3", "*3/*3"]).code
    array([2, 1, 0])
    """
    table, levels = _gene(gene), phenotype_levels(gene)
    problems: dict[str, list[int]] = {}
    found: list[Genotype] = []
    for row, given in enumerate(diplotypes, start=1):
        if str(given).strip() in _MISSING:
            sentence = f"{gene} has no diplotype; leave the patient out, or give the genotype"
            problems.setdefault(sentence, []).append(row)
            continue
        try:
            read = phenotype(gene, str(given))
        except ValueError as error:
            problems.setdefault(str(error), []).append(row)
            continue
        if read.level is None:
            sentence = (
                f"{gene} {read.diplotype} is indeterminate, and has no level; leave the patient out"
            )
            problems.setdefault(sentence, []).append(row)
        found.append(read)
    if problems:
        raise ValueError("\n".join(f"{_in_rows(rows)}: {what}" for what, rows in problems.items()))
    code = np.array([levels.index(str(one.level)) for one in found], dtype=int)
    score = np.array([one.activity_score for one in found], dtype=float) if table.scores else None
    return Phenotypes(gene, levels, code, score, table.version)


def _in_rows(rows: list[int]) -> str:
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:_NAMED]))}{more}"


def monotone(
    code: Int[Array, "..."] | Any, increments: Float[Array, " step"] | Any, reference: int
) -> Float[Array, "..."]:
    r"""Return a factor that never falls from one level of a phenotype to the next.

    .. math:: \exp\Big(\sum_{i \le c} \delta_i - \sum_{i \le r} \delta_i\Big), \qquad \delta_i \ge 0

    for code c and reference r: 1 at the reference, and from level to level greater by
    :math:`e^{\delta}`. Divide by it where more activity means less of a parameter.

    Parameters
    ----------
    code : Int[Array, "..."]
        Each person's level, from 0, as of `phenotypes`.
    increments : Float[Array, "step"]
        The increase from each level to the next on the log scale, one fewer than there are levels.
    reference : int
        The level whose typical value is multiplied by 1.

    Raises
    ------
    ValueError
        A code or the reference is not that of a level, or an increment is negative or not finite. What
        is only known within a compiled or differentiated function gives NaN there.

    References
    ----------
    .. [1] Bürkner PC, Charpentier E (2020). Modelling monotonic effects of ordinal predictors in
       Bayesian regression models. Br J Math Stat Psychol 73:420-451. doi:10.1111/bmsp.12195

    Examples
    --------
    >>> poor_to_normal = [0.7, 0.4]
    >>> print(monotone(phenotypes("CYP2C9", ["*1/*1", "*3/*3"]).code, poor_to_normal, 2).round(3))
    [1.    0.333]
    """
    steps = jnp.asarray(increments, dtype=float)
    codes = code if isinstance(code, Tracer) else np.asarray(code)
    if steps.ndim != 1 or steps.size == 0:
        raise ValueError(
            f"increments have the shape {steps.shape}, but must be a list of one number or more; give "
            f"one for each step from a level to the next"
        )
    last = steps.size
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise ValueError(f"code is of type {codes.dtype}; give whole numbers from 0 to {last}")
    if isinstance(reference, bool) or not 0 <= reference <= last:
        raise ValueError(f"reference is {reference}; give the number of a level, from 0 to {last}")
    ok, level = (steps >= 0) & (steps < jnp.inf), (codes >= 0) & (codes <= last)
    if not isinstance(ok, Tracer) and not ok.all():  # within a compiled function it is one
        raise ValueError(f"increments are {steps}; give finite ones that are not negative")

    def says(found: Any) -> str:
        return f"code {found} is not that of a level; give whole numbers from 0 to {last}"

    if isinstance(codes, Tracer):
        refusing(says, codes, level)
    elif not level.all():
        raise ValueError(says(codes[~level].flat[0]))
    height = jnp.pad(jnp.cumsum(jnp.where(ok, steps, jnp.nan)), (1, 0))
    factor = jnp.exp(height - height[reference])
    return jnp.where(level, factor[jnp.clip(codes, 0, last)], jnp.nan)
