"""How many effective draws does a second give? Theophylline, the same priors, one engine after the other.

    uv run python benchmarks/theophylline_engines.py                all engines, in this one process
    uv run python benchmarks/theophylline_engines.py nuts pymc      some of them
    uv run python benchmarks/theophylline_engines.py --draws 500    shorter ones

Each engine has its own default of everything but the numbers of steps. What is counted: warm-up and
draws of four chains, by CPU (`time.process_time`, all threads of this process; no engine here starts
another process) and by wall clock. Compilation is reported beside, and is not counted: where a
library compiles in every run, the time of a run of one step is subtracted. An ESS is the lowest bulk
one of the population parameters.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import MCMC, NUTS

import popk

DATA = Path(__file__).parents[1] / "data" / "theophylline.csv"
POPULATION = ("CL_pop", "V_pop", "KA_pop", "omega_CL", "omega_V", "omega_KA", "corr",
              "sigma_additive", "sigma_proportional")  # fmt: skip
CHAINS = 4


def theophylline(trial):
    """Oral theophylline as popk's users write it."""
    size = trial.covariate("WT") / 70
    CL = numpyro.sample("CL_pop", popk.lognormal(2.8, cv=0.5))
    V = numpyro.sample("V_pop", popk.lognormal(32, cv=0.5))
    KA = numpyro.sample("KA_pop", popk.lognormal(1.5, cv=0.5))
    p = popk.individual(trial, CL=CL * size**0.75, V=V * size, KA=KA)
    concentration = popk.one_compartment(trial, CL=p.CL, V=p.V, KA=p.KA)
    popk.observe(trial, concentration, popk.combined_error(additive=0.5, proportional=0.2))


def plain(subject, since, dose, size, DV):
    """The same as users of NumPyro write it without popk: not centred, the textbook's formula."""
    lognormal = [popk.lognormal(m, cv=0.5) for m in (2.8, 32.0, 1.5)]
    names = ("CL", "V", "KA")
    pop = [numpyro.sample(f"{n}_pop", p) for n, p in zip(names, lognormal, strict=True)]
    omega = jnp.stack([numpyro.sample(f"omega_{n}", dist.HalfNormal(0.5)) for n in names])
    lower: Any = numpyro.sample("corr_cholesky", dist.LKJCholesky(3, 2.0))
    numpyro.deterministic("corr", lower @ lower.T)
    with numpyro.plate("subject", size.shape[0]):
        z: Any = numpyro.sample("z", dist.Normal(0, 1).expand([3]).to_event(1))
    eta = z @ (omega[:, None] * lower).T
    CL, V, KA = (
        (pop[i] * size**power * jnp.exp(eta[:, i]))[subject]
        for i, power in enumerate((0.75, 1.0, 0.0))
    )
    k = CL / V
    f = dose[subject] / V * KA / (KA - k) * (jnp.exp(-k * since) - jnp.exp(-KA * since))
    f = jnp.where(since > 0, f, 0.0)
    a = numpyro.sample("sigma_additive", dist.HalfNormal(0.5))
    b = numpyro.sample("sigma_proportional", dist.HalfNormal(0.2))
    numpyro.sample("DV", dist.Normal(f, jnp.sqrt(a**2 + (b * f) ** 2)), obs=DV)


class Run:
    """What one engine took: compilation, then warm-up and draws.

    Parameters
    ----------
    draws : Dataset
    compilation, wall, cpu : float
        [s]
    """

    def __init__(self, draws: Any, compilation: float, wall: float, cpu: float):
        self.draws, self.compilation, self.wall, self.cpu = draws, compilation, wall, cpu


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what work returns, and the seconds it took by wall clock and by CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def through_popk(method: str) -> Callable[..., Run]:
    """Return a run of `popk.fit`, compiled by a fit with another seed before."""

    def run(trial: Any, warmup: int, draws: int) -> Run:
        def fit(seed: int, warmup: int, draws: int) -> Any:
            return popk.fit(theophylline, trial, seed=seed, method=method, chains=CHAINS, warmup=warmup,
                            draws=draws, progress=False)  # fmt: skip

        _, first, _ = timed(lambda: fit(2, warmup, draws))
        tree, wall, cpu = timed(lambda: fit(1, warmup, draws))
        return Run(tree["posterior"].dataset, first - wall, wall, cpu)

    return run


def by_numpyro(trial: Any, warmup: int, draws: int) -> Run:
    """Return a run of NumPyro's own NUTS, chains one after another."""
    frame = trial.to_dataframe()
    frame = frame[frame["EVID"].ne(0) | frame["MDV"].eq(0)]
    dosed, level = frame[frame["EVID"].eq(1)], frame[frame["EVID"].eq(0)]
    place = {ID: i for i, ID in enumerate(dosed["ID"])}
    data = (
        level["ID"].map(place).to_numpy(), level["TIME"].to_numpy(), dosed["AMT"].to_numpy(),
        dosed["WT"].to_numpy() / 70, level["DV"].to_numpy(),
    )  # fmt: skip
    mcmc = MCMC(NUTS(plain), num_warmup=warmup, num_samples=draws, num_chains=CHAINS,
                chain_method="sequential", progress_bar=False)  # fmt: skip

    def one_step() -> None:
        # A new object compiles anew, as every call of MCMC.run does.
        short = MCMC(NUTS(plain), num_warmup=1, num_samples=1, num_chains=CHAINS,
                     chain_method="sequential", progress_bar=False)  # fmt: skip
        short.run(jax.random.key(0), *data)

    _, compilation, _ = timed(one_step)
    _, again, spent = timed(one_step)
    _, wall, cpu = timed(lambda: mcmc.run(jax.random.key(1), *data))
    found = az.from_numpyro(mcmc, log_likelihood=False)["posterior"].dataset
    return Run(found, compilation, wall - again, cpu - spent)


def by_pymc(trial: Any, warmup: int, draws: int) -> Run:
    """Return a run of `pm.sample` with its own defaults, of popk's model in PyMC."""
    import pymc as pm

    written = popk.pymc_model(theophylline, trial)

    def sample(tune: int, draws: int) -> Any:
        with written:
            return pm.sample(draws, tune=tune, chains=CHAINS, cores=1, random_seed=1, nuts_sampler="pymc",
                             progressbar=False, compute_convergence_checks=False)  # fmt: skip

    _, compilation, _ = timed(lambda: sample(1, 1))
    tree, wall, cpu = timed(lambda: sample(warmup, draws))
    _, again, spent = timed(lambda: sample(1, 1))
    return Run(tree["posterior"].dataset, compilation, wall - again, cpu - spent)


def by_nutpie(trial: Any, warmup: int, draws: int) -> Run:
    """Return a run of nutpie on popk's model in PyMC, compiled by Numba."""
    import nutpie

    written = popk.pymc_model(theophylline, trial)
    compiled, compilation, _ = timed(lambda: nutpie.compile_pymc_model(written, backend="numba"))
    tree, wall, cpu = timed(
        lambda: nutpie.sample(
            compiled, draws=draws, tune=warmup, chains=CHAINS, cores=1, seed=1, progress_bar=False
        )
    )
    return Run(tree["posterior"].dataset, compilation, wall, cpu)


ENGINES = {
    "nuts": ("popk, method='nuts'", through_popk("nuts")),
    "numpyro": ("NumPyro, not centred, sequential", by_numpyro),
    "pymc": ("PyMC, pm.sample of popk.pymc_model", by_pymc),
    "nutpie-pymc": ("nutpie of popk.pymc_model, Numba", by_nutpie),
    "nutpie": ("popk, method='nutpie'", through_popk("nutpie")),
}


def lowest(draws: Any) -> tuple[float, float]:
    """Return the lowest bulk ESS and the highest R-hat of the population parameters."""
    ess, rhat = [], []
    for name in POPULATION:
        x = draws[name].to_numpy()
        pairs = [(0, 1), (0, 2), (1, 2)] if name == "corr" else [()]
        for at in pairs:
            each = x[(..., *at)]
            ess.append(float(az.ess(each, method="bulk")))
            rhat.append(float(az.rhat(each)))
    return min(ess), max(rhat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="*", help=", ".join(ENGINES))
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    trial, rows = popk.read_nonmem(DATA), []
    for name in asked.engines or ENGINES:
        title, run = ENGINES[name]
        took = run(trial, asked.warmup, asked.draws)
        ess, rhat = lowest(took.draws)
        rows.append(
            (
                title,
                took.compilation,
                took.wall,
                took.cpu,
                ess,
                rhat,
                ess / took.cpu,
                ess / took.wall,
            )
        )
        print(f"{title}: ESS {ess:.0f}, {took.wall:.1f} s", flush=True)
    columns = ("engine", "compile s", "wall s", "CPU s", "ESS", "R-hat", "ESS/CPU s", "ESS/wall s")
    table = pd.DataFrame(rows, columns=list(columns)).set_index("engine")
    print(f"{CHAINS} chains, {asked.warmup} warm-up steps, {asked.draws} draws")
    print(table.to_string(float_format=lambda x: f"{x:.4g}"))


if __name__ == "__main__":
    main()
