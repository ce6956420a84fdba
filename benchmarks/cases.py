"""What is speed measured on? Made-up trials, and models that differ in the structure alone.

Each case is a function of the number of subjects. Its records are drawn with a fixed seed; its
`model` takes any structure, a function of a trial and of individual parameters that returns a level
at every record. Parameters are made up on the scale of the source that each case names.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from scipy.integrate import odeint

import popk

Structure = Callable[[Any, Any], Any]

SEED, SPREAD, NOISE = 0, 0.3, 0.15  # sd of the subjects and of the levels, on the log scale


class System(NamedTuple):
    """How drug moves in one subject, in arithmetic that NumPy and JAX share.

    Attributes
    ----------
    field : Callable
        ``field(amounts, constants)`` is the derivative of every state [amount/time].
    level : Callable
        ``level(amounts, p)`` is what is measured [unit of DV].
    start : Callable
        ``start(p)`` is the state before the first record.
    constants : Callable
        ``constants(p)`` is what `field` reads, made once a subject.
    matrix : Callable or None
        ``matrix(p)`` is the rate matrix [1/time], if the system is linear.
    """

    field: Callable[[Any, Any], Any]
    level: Callable[[Any, Any], Any]
    start: Callable[[Any], tuple[Any, ...]]
    constants: Callable[[Any], Any] = lambda p: p
    matrix: Callable[[Any], Any] | None = None


class Case(NamedTuple):
    """A trial, and the model that is measured on it.

    Attributes
    ----------
    records : DataFrame
        NONMEM layout; doses go to the first state, every subject has as many records.
    units : dict of str to str
        The unit of TIME, AMT and DV.
    typical : dict of str to float
        The prior median of each parameter; its CV is 50%.
    error : tuple of float
        Scales of the additive [unit of DV] and the proportional error's half-normal priors.
    system : System
    """

    records: pd.DataFrame
    units: dict[str, str]
    typical: dict[str, float]
    error: tuple[float, float]
    system: System

    @property
    def n_subjects(self) -> int:
        """Return the number of subjects."""
        return len(set(self.records["ID"]))

    def grid(self, column: str) -> np.ndarray:
        """Return a column as [subject, record]."""
        return self.records[column].to_numpy(dtype=float).reshape(self.n_subjects, -1)

    def trial(self) -> Any:
        """Return the records as a trial."""
        return popk.read_nonmem(self.records, units=self.units)

    def model(self, structure: Structure) -> Callable[[Any], None]:
        """Return the NumPyro model whose levels are ``structure(trial, p)``, p.CL being [subject, 1]."""

        def model(trial: Any) -> None:
            typical: dict[str, Any] = {
                name: numpyro.sample(f"{name}_pop", popk.lognormal(median, cv=0.5))
                for name, median in self.typical.items()
            }
            p = popk.individual(trial, **typical)
            popk.observe(trial, structure(trial, p), popk.combined_error(*self.error))

        return model


def two_compartment(n_subjects: int = 100) -> Case:
    """Return two compartments with absorption: 14 doses by mouth about every 12 h, and 12 levels.

    Parameters
    ----------
    n_subjects : int
    """

    def field(amounts: Any, p: Any) -> tuple[Any, ...]:
        depot, central, peripheral = amounts
        absorbed, exchanged = p.KA * depot, p.Q * (central / p.V1 - peripheral / p.V2)
        return -absorbed, absorbed - p.CL / p.V1 * central - exchanged, exchanged

    def matrix(p: Any) -> Any:
        k10, k12, k21 = p.CL / p.V1, p.Q / p.V1, p.Q / p.V2
        zero = jnp.zeros_like(p.KA)
        rows = ([-p.KA, zero, zero], [p.KA, -k10 - k12, k21], [zero, k12, -k21])
        return jnp.stack([jnp.stack(row) for row in rows])

    return Case(
        records=oral_records(n_subjects),
        units={"TIME": "h", "AMT": "mg", "DV": "mg/L"},
        typical={"CL": 5.0, "V1": 20.0, "Q": 3.0, "V2": 40.0, "KA": 1.0},  # L/h, L, L/h, L, 1/h
        error=(0.1, 0.2),
        system=System(field, lambda y, p: y[1] / p.V1, lambda p: (0.0, 0.0, 0.0), matrix=matrix),
    )


def michaelis_menten(n_subjects: int = 100) -> Case:
    """Return saturable elimination with absorption, on the doses and times of `two_compartment`.

    The mean dose rate is half of VMAX, so that levels lie around KM.

    Parameters
    ----------
    n_subjects : int
    """

    def field(amounts: Any, p: Any) -> tuple[Any, ...]:
        depot, central = amounts
        concentration = central / p.V
        return -p.KA * depot, p.KA * depot - p.VMAX * concentration / (p.KM + concentration)

    case = Case(
        records=oral_records(n_subjects),
        units={"TIME": "h", "AMT": "mg", "DV": "mg/L"},
        typical={"VMAX": 20.0, "KM": 4.0, "V": 30.0, "KA": 1.0},  # mg/h, mg/L, L, 1/h
        error=(0.1, 0.2),
        system=System(field, lambda y, p: y[1] / p.V, lambda p: (0.0, 0.0)),
    )
    return with_levels(case)


def target_mediated(n_subjects: int = 64) -> Case:
    r"""Return full target-mediated disposition after two IV boluses, 10 to 10,000 nmol by subject.

    With A the free ligand [nmol], C = A/V, R the free receptor and P the complex [nmol/L]:

    .. math::
        A' = -CL\,C - V (k_{on} C R - k_{off} P), \quad
        R' = k_{syn} - k_{deg} R - k_{on} C R + k_{off} P, \quad
        P' = k_{on} C R - (k_{off} + k_{int}) P

    How stiff it is differs between subjects with the dose: :math:`k_{on} C` starts at 0.4 to 400/h,
    where CL/V is 0.005/h. CL and V are those of a typical antibody [3]; the rest is made up so that
    the target (10 nmol/L) is saturated by the larger doses and takes up the smaller ones.

    Parameters
    ----------
    n_subjects : int

    References
    ----------
    .. [1] Mager DE, Jusko WJ (2001). General pharmacokinetic model for drugs exhibiting
       target-mediated drug disposition. J Pharmacokinet Pharmacodyn 28:507-532.
       doi:10.1023/A:1014414520282
    .. [2] Gibiansky L, Gibiansky E, Kakkar T, Ma P (2008). Approximations of the target-mediated
       drug disposition model and identifiability of model parameters. J Pharmacokinet Pharmacodyn
       35:573-591. doi:10.1007/s10928-008-9102-8
    .. [3] Dirks NL, Meibohm B (2010). Population pharmacokinetics of therapeutic monoclonal
       antibodies. Clin Pharmacokinet 49:633-659.
    """

    def field(amounts: Any, p: Any) -> tuple[Any, ...]:
        ligand, receptor, complexed = amounts
        concentration = ligand / p.V
        bound = p.KON * concentration * receptor - p.KOFF * complexed
        made, lost = p.KSYN - p.KDEG * receptor, p.KINT * complexed
        return -p.CL * concentration - p.V * bound, made - bound, bound - lost

    case = Case(
        records=bolus_records(n_subjects),
        units={"TIME": "h", "AMT": "nmol", "DV": "nmol/L"},
        typical={"CL": 0.0129, "V": 2.8, "KON": 0.1}  # L/h, L, L/nmol/h
        | {"KOFF": 0.05, "KINT": 0.04, "KDEG": 0.05, "KSYN": 0.5},  # 1/h, and KSYN nmol/L/h
        error=(0.1, 0.2),
        system=System(field, lambda y, p: y[0] / p.V, lambda p: (0.0, p.KSYN / p.KDEG, 0.0)),
    )
    return with_levels(case)


#: Mass [kg], share of the cardiac output, and a made-up tissue-to-blood partition coefficient.
#: Masses and flows are the adult male's of ICRP 89; the gut is stomach, small and large intestine;
#: the liver's flow is its artery's; "rest" is what is left of 73 kg and of the output.
TISSUES = {
    "lung": (0.50, 1.000, 2.0),
    "heart": (0.33, 0.040, 2.0),
    "brain": (1.45, 0.120, 1.5),
    "muscle": (29.0, 0.170, 1.5),
    "adipose": (18.2, 0.050, 4.0),
    "skin": (3.30, 0.050, 1.5),
    "bone": (10.5, 0.050, 1.0),
    "kidney": (0.31, 0.190, 3.0),
    "spleen": (0.15, 0.030, 2.0),
    "pancreas": (0.14, 0.010, 2.0),
    "gut": (1.17, 0.150, 2.0),
    "liver": (1.80, 0.065, 3.5),
    "rest": (0.55, 0.075, 1.5),
}
STATES = ("lumen", "venous", "arterial", *TISSUES)
CARDIAC_OUTPUT = 390.0  # L/h, 6.5 L/min
BLOOD = {"venous": 5.6 * 2 / 3, "arterial": 5.6 / 3}  # L; the mass is ICRP 89's, the split made up
PORTAL = ("spleen", "pancreas", "gut")


def whole_body_rates(p: Any) -> Any:
    r"""Return the rate matrix of a flow-limited whole body, [16, 16] in the order of `STATES`.

    .. math:: A_i' = Q_i \left(C_{art} - \frac{A_i}{V_i\, K_{P,i}\, KP}\right)

    Spleen, pancreas and gut drain into the liver, the lung from venous to arterial blood. The liver
    eliminates CLINT, the kidney CLR times the concentration that leaves it; the lumen empties into
    the gut with KA. A kilogram of tissue is taken as a liter.

    Parameters
    ----------
    p : namedtuple
        CLINT, CLR [L/h], KA [1/h], and KP, the common factor of all partition coefficients.

    References
    ----------
    .. [1] ICRP (2002). Basic anatomical and physiological data for use in radiological protection:
       reference values. ICRP Publication 89. Ann ICRP 32(3-4). doi:10.1016/S0146-6453(03)00002-2
    """
    blood, tissue, absorbed, hepatic, renal = _WHOLE_BODY
    return blood + p.KA * absorbed + (tissue + p.CLINT * hepatic + p.CLR * renal) / p.KP


def _whole_body() -> tuple[np.ndarray, ...]:
    """Return the parts of the rate matrix: what leaves blood, what leaves tissue, and the rest."""
    at = {name: i for i, name in enumerate(STATES)}
    flow = {name: CARDIAC_OUTPUT * share for name, (_, share, _) in TISSUES.items()}
    out = {name: 1 / (mass * kp) for name, (mass, _, kp) in TISSUES.items()}
    blood, tissue, absorbed, hepatic, renal = np.zeros((5, len(STATES), len(STATES)))

    def move(part: np.ndarray, source: str, rate: float, *target: str) -> None:
        part[at[source], at[source]] -= rate
        for name in target:
            part[at[name], at[source]] += rate

    move(absorbed, "lumen", 1.0, "gut")
    move(hepatic, "liver", out["liver"])
    move(renal, "kidney", out["kidney"])
    move(blood, "venous", CARDIAC_OUTPUT / BLOOD["venous"], "lung")
    move(tissue, "lung", CARDIAC_OUTPUT * out["lung"], "arterial")
    for name in [name for name in TISSUES if name != "lung"]:
        move(blood, "arterial", flow[name] / BLOOD["arterial"], name)
        drained = flow[name] + (sum(flow[n] for n in PORTAL) if name == "liver" else 0.0)
        move(tissue, name, drained * out[name], "liver" if name in PORTAL else "venous")
    return blood, tissue, absorbed, hepatic, renal


_WHOLE_BODY = _whole_body()


def whole_body(n_subjects: int = 20) -> Case:
    """Return a linear whole-body model of 16 states: 6 doses by mouth, 34 levels in venous blood.

    Parameters
    ----------
    n_subjects : int
    """
    case = Case(
        records=rich_records(n_subjects),
        units={"TIME": "h", "AMT": "mg", "DV": "mg/L"},
        typical={"CLINT": 60.0, "CLR": 3.0, "KA": 0.8, "KP": 1.0},  # L/h, L/h, 1/h, 1
        error=(0.05, 0.2),
        system=System(
            lambda y, rates: rates @ y,
            lambda y, p: y[1] / BLOOD["venous"],
            lambda p: (0.0,) * len(STATES),
            *(whole_body_rates, whole_body_rates),
        ),
    )
    return with_levels(case)


def oral_records(n_subjects: int, n_doses: int = 14, n_levels: int = 12) -> pd.DataFrame:
    """Return 50, 100 or 200 mg about every 12 h and levels between 1 and 180 h, DV near 1.6 mg/L.

    Parameters
    ----------
    n_subjects, n_doses, n_levels : int
        The numbers of subjects, and of doses and levels of each.
    """
    rng = np.random.default_rng(SEED)
    tables = []
    for subject in range(1, n_subjects + 1):
        dosed = 12.0 * np.arange(n_doses) + rng.uniform(0, 1, n_doses)
        doses = rng.choice([50.0, 100.0, 200.0], n_doses)
        times = np.sort(rng.uniform(1, 180, n_levels))
        levels = rng.lognormal(0.5, 0.4, n_levels)
        tables.append(_records(subject, dosed, doses, times, levels))
    return pd.concat(tables, ignore_index=True)


def bolus_records(n_subjects: int) -> pd.DataFrame:
    """Return the same bolus at 0 and 336 h, 10 to 10,000 nmol by subject, with 9 levels after each.

    Parameters
    ----------
    n_subjects : int
    """
    rng = np.random.default_rng(SEED)
    after = np.array([0.5, 2.0, 8.0, 24.0, 48.0, 96.0, 168.0, 240.0, 320.0])
    dosed, planned = np.array([0.0, 336.0]), np.concatenate([after, 336.0 + after])
    tables = []
    for subject in range(1, n_subjects + 1):
        dose, times = 10 ** rng.uniform(1, 4), planned * rng.uniform(0.98, 1.02, 18)
        tables.append(_records(subject, dosed, dose, times))
    return pd.concat(tables, ignore_index=True)


def rich_records(n_subjects: int) -> pd.DataFrame:
    """Return 100 to 400 mg every 12 h, levels dense after the first and the last of 6 doses.

    Parameters
    ----------
    n_subjects : int
    """
    rng = np.random.default_rng(SEED)
    after = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0])
    dosed, last = 12.0 * np.arange(6), 60.0 + np.concatenate([after, [12.0, 15.0, 18.0, 24.0]])
    tables = []
    for subject in range(1, n_subjects + 1):
        first, between = after * rng.uniform(0.95, 1.05, 10), rng.uniform(12.5, 59.5, 10)
        times = np.concatenate([first, between, last])
        tables.append(_records(subject, dosed, rng.choice([100.0, 200.0, 400.0]), times))
    return pd.concat(tables, ignore_index=True)


def _records(subject: int, dosed: Any, dose: Any, times: Any, levels: Any = 1.0) -> pd.DataFrame:
    doses = pd.DataFrame({"TIME": dosed}).assign(EVID=1, AMT=dose, DV=np.nan, MDV=1)
    measured = pd.DataFrame({"TIME": times}).assign(EVID=0, AMT=0.0, DV=levels, MDV=0)
    return pd.concat([doses, measured]).sort_values("TIME", kind="stable").assign(ID=subject)


def with_levels(case: Case) -> Case:
    """Return the case with levels simulated from its own system, in log-normal subjects and noise.

    Parameters
    ----------
    case : Case
    """
    rng = np.random.default_rng(SEED + 1)
    times, amounts = case.grid("TIME"), case.grid("AMT")
    predicted = []
    for time, amount in zip(times, amounts, strict=True):
        p = {n: m * np.exp(SPREAD * rng.standard_normal()) for n, m in case.typical.items()}
        predicted.append(reference_levels(case.system, p, time, amount, rtol=1e-8))
    noise = np.exp(NOISE * rng.standard_normal(times.shape))
    measured = case.records["EVID"] == 0
    levels = np.where(measured, (np.stack(predicted) * noise).ravel(), np.nan)
    return case._replace(records=case.records.assign(DV=levels))


def reference_levels(
    system: System, p: Mapping[str, float], time: np.ndarray, amount: np.ndarray, rtol: float
) -> np.ndarray:
    """Return one subject's levels at every record by ODEPACK's LSODA.

    Parameters
    ----------
    system : System
    p : mapping of str to float
        The subject's parameters.
    time, amount : ndarray of shape [record]
        When, and what goes into the first state there (0 for a level).
    rtol : float
        Relative tolerance; the absolute one is a thousandth of it.
    """
    values = namedtuple("Individual", p)(*p.values())
    constants = system.constants(values)
    state, last, levels = np.array(system.start(values)), time[0], []
    settings = {"rtol": rtol, "atol": 1e-3 * rtol, "mxstep": 100_000}
    for now, dose in zip(time, amount, strict=True):
        if now > last:
            interval = [last, now]
            state = odeint(lambda y, _: system.field(y, constants), state, interval, **settings)[-1]
        state[0] += dose
        last = now
        levels.append(system.level(state, values))
    return np.array(levels)
