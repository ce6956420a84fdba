"""Weekly doses of warfarin that keep the INR stable: clearance by CYP2C9, sensitivity by VKORC1.

Data: International Warfarin Pharmacogenetics Consortium, Klein TE, Altman RB, Eriksson N, et al. (2009).
Estimation of the warfarin dose with clinical and pharmacogenetic data. N Engl J Med 360:753-764.
doi:10.1056/NEJMoa0809329 (data/iwpc.csv). At steady state the active half of the dose is what is cleared,
dose / 2 = 168 h CL CSS; CSS, of S-warfarin, is lower where less VKORC1 is expressed. Doses tell only the
product: the prior of CL of *1/*1 is that of Hamberg AK, Wadelius M, Lindh JD, et al. (2010). Clin Pharmacol
Ther 87:727-734. doi:10.1038/clpt.2010.37. Each patient has one dose: sigma_log holds people and error.
Priors: weakly informative; no step of a gene's activity lowers the dose. Site 0 is a new one.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import popk
from popk.covariates import categorical, exponential, monotone, phenotypes, power

COVARIATES = {"CYP2C9": "1", "VKORC1": "1", "AGE": "year", "WT": "kg", "HT": "cm", "RACE": "1",
              "AMIODARONE": "1", "INDUCER": "1", "SITE": "1"}  # fmt: skip
RACES = ("White", "Asian", "Black or African American", "Unknown")
#: Covariates that data/iwpc.csv writes otherwise; a drug is 0 not taken, 1 taken, 2 not asked for.
CODES = {
    "CYP2C9": lambda d: phenotypes("CYP2C9", d["CYP2C9"]).activity_score,
    "VKORC1": lambda d: phenotypes("VKORC1", d["VKORC1"]).code,  # how many G at -1639
    "AGE": lambda d: d["AGE"].str[:2].astype(int) + 5,  # the middle of the decade
    "RACE": lambda d: d["RACE"].map(RACES.index),
    "AMIODARONE": lambda d: d["AMIODARONE"].map("01.".index),
    "INDUCER": lambda d: (d["CARBAMAZEPINE"] + d["PHENYTOIN"] + d["RIFAMPIN"]).map(
        lambda three: 1 if "1" in three else 2 * ("." in three)),
}  # fmt: skip


def warfarin_dose(trial):
    """Steady-state dose of warfarin: CL of S-warfarin by CYP2C9, its concentration by VKORC1."""
    sample, of, normal = numpyro.sample, trial.covariate, dist.Normal

    def by(site, codes, prior, first=0, rises=False):
        with numpyro.plate(site.split("_")[-1], len(codes) - first):
            x = sample(site, prior)  # of the steps from each code to the next, or of later codes
        logs = jnp.append(jnp.zeros(first), x)
        factors = monotone(range(len(codes)), x, len(codes) - 1) if rises else jnp.exp(logs)
        return categorical(of(site.split("_")[-1]), dict(zip(codes, factors, strict=True)))

    up, shift = (dist.HalfNormal(0.5), 1, True), (normal(0, 0.3), 1)
    site = normal(0, sample("tau_CSS_SITE", dist.HalfNormal(0.2)))
    CL = sample("CL_pop", popk.lognormal(0.348, cv=0.1)) * by("CL_CYP2C9", (0, 0.5, 1, 1.5, 2), *up)
    CL *= exponential(of("AGE") / 10, sample("CL_AGE", normal(0, 0.2)), 6.5)  # a decade
    CL *= power(of("WT"), sample("CL_WT", normal(0.5, 0.5)), 75)
    CL *= power(of("HT"), sample("CL_HT", normal(0.5, 0.5)), 170)
    CL *= by("CL_AMIODARONE", range(3), *shift) * by("CL_INDUCER", range(3), *shift)  # L/h
    CSS = sample("CSS_pop", popk.lognormal(0.3, cv=0.5)) * by("CSS_VKORC1", range(3), *up)  # mg/L
    CSS *= by("CSS_RACE", range(4), *shift) * by("zeta_CSS_SITE", range(23), site)
    own = {"CL": CL, "CSS": CSS, "DOSE": 2 * 168 * CL * CSS}  # the last in mg/week
    with numpyro.plate("subject", trial.n_subjects, dim=-2):
        own = {name: numpyro.deterministic(name, value) for name, value in own.items()}
    dose = own["DOSE"] * jnp.ones_like(trial.time)
    popk.observe(trial, dose, popk.lognormal_error(0.5, degrees=dist.Gamma(2, 0.1)))
