"""What is believed before the data? Priors in the field's words."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Float


class Fixed(NamedTuple):
    """A value that is known rather than estimated; see `fixed`."""

    value: float


Known = dist.Distribution | Fixed
Prior = float | Known


def fixed(value: float) -> Fixed:
    """Return a value that takes the place of a prior: the parameter is not estimated.

    Parameters
    ----------
    value : float
        In the parameter's unit.
    """
    return Fixed(float(value))


def lognormal(median: float, *, cv: float) -> dist.Distribution:
    r"""Return the log-normal distribution with a given median and coefficient of variation.

    .. math:: \log\theta \sim N(\log m, \log(1 + cv^2))

    Parameters
    ----------
    median : float
        The median, in the parameter's unit; positive.
    cv : float
        Standard deviation over mean, as a fraction (0.5 is 50%); positive.

    Raises
    ------
    ValueError
        A number is not positive.

    Examples
    --------
    >>> float(lognormal(2.8, cv=0.5).icdf(0.5).round(6))
    2.8
    """
    if not (median > 0 and cv > 0):
        raise ValueError(f"lognormal(median={median}, cv={cv}): both must be positive")
    return dist.LogNormal(math.log(median), math.sqrt(math.log1p(cv**2)))


def prior(estimate: float, *, rse: float, positive: bool = False) -> dist.Distribution:
    r"""Return the prior that a published estimate and its precision amount to.

    A normal distribution with mean :math:`e` and standard deviation :math:`r\,|e|`; with `positive`
    the log-normal one of median e and coefficient of variation r.

    Parameters
    ----------
    estimate : float
        e, in the parameter's unit; not 0.
    rse : float
        r, the relative standard error as a fraction (0.25 is 25%); positive. Papers understate it:
        a larger one leaves room for another population.
    positive : bool
        Whether the parameter cannot be negative, as a clearance.

    Raises
    ------
    ValueError
        `rse` is not positive, the estimate is 0, or negative where it must be positive.

    Examples
    --------
    >>> float(prior(0.15, rse=0.25).scale)
    0.0375
    """
    if not (rse > 0 and abs(estimate) > 0) or (positive and not estimate > 0):
        raise ValueError(
            f"prior({estimate}, rse={rse}, positive={positive}): rse must be positive and the estimate "
            f"not 0, nor below it where positive=True; write a distribution for anything else"
        )
    if positive:
        return lognormal(estimate, cv=rse)
    return dist.Normal(float(estimate), float(rse * abs(estimate)))


def half_normal(prior: Prior) -> Fixed | dist.Distribution:
    """Return the prior of a standard deviation: a number is the scale of a half-normal.

    Raises
    ------
    ValueError
        The number is not positive.
    """
    if isinstance(prior, Fixed | dist.Distribution):
        return prior
    if not prior > 0:
        raise ValueError(
            f"{prior} is no scale of a half-normal prior: it must be positive; "
            f"popk.fixed({prior}) fixes the value itself"
        )
    return dist.HalfNormal(float(prior))


def known_prior(name: str, prior: Any, example: str) -> Known:
    """Return what must be a prior or a fixed value, since no number can stand for its prior.

    Parameters
    ----------
    name : str
        Of the parameter, as the caller gave it.
    prior : object
    example : str
        A value that it may be fixed at.

    Raises
    ------
    ValueError
        It is neither.
    """
    if isinstance(prior, Fixed | dist.Distribution):
        return prior
    raise ValueError(
        f"{name} is {prior!r}; give its prior, a NumPyro distribution, or popk.fixed({example})"
    )


_PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True, eq=False)
class JointPrior(Mapping[str, dist.Distribution]):
    """Priors of several parameters that are normal together, on the log scale where positive.

    ``prior["CL_pop"]`` is the distribution of one, whatever the others are.

    Attributes
    ----------
    names : tuple of str
    positive : tuple of bool
        Whether each is log-normal rather than normal.
    mean : Float[ndarray, "parameter"]
        Of the parameter, or of its logarithm where it is positive.
    covariance : Float[ndarray, "parameter parameter"]
        The same way.
    """

    names: tuple[str, ...]
    positive: tuple[bool, ...]
    mean: Float[np.ndarray, " p"]
    covariance: Float[np.ndarray, "p p"]

    def __getitem__(self, name: str) -> dist.Distribution:
        """Return the prior of one parameter on its own."""
        return self.given(name)

    def __iter__(self) -> Iterator[str]:
        """Return the parameters in order."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return how many parameters there are."""
        return len(self.names)

    def given(self, name: str, **values: Any) -> dist.Distribution:
        r"""Return the prior of one parameter where others have certain values.

        .. math:: z_i | z_G \sim N(m_i + \Sigma_{iG} \Sigma_{GG}^{-1} (z_G - m_G),\,
            \Sigma_{ii} - \Sigma_{iG} \Sigma_{GG}^{-1} \Sigma_{Gi})

        Parameters taken one after the other, each given all before it, have their joint distribution.

        Parameters
        ----------
        name : str
        **values : Float[Array, ""]
            Of other parameters, in their units, as `numpyro.sample` returned them.

        Raises
        ------
        KeyError
            A parameter is none of these.
        ValueError
            The parameter is given itself.

        Examples
        --------
        >>> CL = numpyro.sample("CL_pop", prior["CL_pop"])  # doctest: +SKIP
        >>> V = numpyro.sample("V_pop", prior.given("V_pop", CL_pop=CL))  # doctest: +SKIP
        """
        if strange := [n for n in (name, *values) if n not in self.names]:
            raise KeyError(f"no prior of {', '.join(strange)}; there is one of {self.names}")
        if name in values:
            raise ValueError(f"{name} is given itself; name the parameter that is to be sampled")
        i, others = self.names.index(name), [self.names.index(n) for n in values]
        form = dist.LogNormal if self.positive[i] else dist.Normal
        if not others:
            return form(float(self.mean[i]), float(np.sqrt(self.covariance[i, i])))
        seen = self.covariance[np.ix_(others, others)]
        weights = np.linalg.solve(seen, self.covariance[others, i])
        left = self.covariance[i, i] - weights @ self.covariance[others, i]
        z = [
            jnp.log(v) if self.positive[j] else v
            for j, v in zip(others, values.values(), strict=True)
        ]
        shift = sum(w * (x - self.mean[j]) for w, x, j in zip(weights, z, others, strict=True))
        return form(float(self.mean[i]) + shift, float(np.sqrt(left)))


def prior_from(
    posterior: xr.DataTree,
    names: Sequence[str],
    *,
    inflate: float = 1.0,
    signed: Sequence[str] = (),
    tolerance: float = 0.2,
) -> JointPrior:
    r"""Return the posterior of one study as the prior of the next [1]_.

    Means and covariances of the draws are kept, on the log scale where all draws are positive:
    log-normal priors there, normal ones elsewhere. How well that form fits is measured by
    quantiles: at 5, 25, 50, 75 and 95% they must lie within `tolerance` standard deviations of the
    draws' own.

    Parameters
    ----------
    posterior : DataTree
        As `popk.fit` returns it, or ``popk.open_run("runs/first").posterior``.
    names : sequence of str
        Population parameters, each one number: ``["CL_pop", "V_pop", "omega_CL"]``.
    inflate : float
        What standard deviations are multiplied by, on the log scale where there is one; above 1 the
        next study is believed to differ. Correlations stay.
    signed : sequence of str
        Those that may be negative although no draw is: normal priors.
    tolerance : float
        The largest mismatch of a quantile [standard deviations]; 0.2 is a skewness of about 0.7.

    Returns
    -------
    JointPrior
        A mapping of name to distribution; its `given` keeps correlations.

    Raises
    ------
    ValueError
        The posterior lacks a parameter, or it is not one number, constant or not finite; the matched
        form is poor; `inflate` or `tolerance` is not positive.

    Examples
    --------
    >>> first = popk.open_run("runs/first").posterior  # doctest: +SKIP
    >>> CL = numpyro.sample("CL_pop", popk.prior_from(first, ["CL_pop"])["CL_pop"])
    ... # doctest: +SKIP

    References
    ----------
    .. [1] Gisleskog PO, Karlsson MO, Beal SL (2002). Use of prior information to stabilize a population
       data analysis. J Pharmacokinet Pharmacodyn 29:473-505. doi:10.1023/A:1022972420004
    """
    if not (inflate > 0 and tolerance > 0 and math.isfinite(inflate)):
        raise ValueError(f"inflate={inflate} and tolerance={tolerance} must be positive")
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ValueError(f"names is {names!r}; give different parameters, ['CL_pop', 'V_pop']")
    if strange := [n for n in signed if n not in names]:
        raise ValueError(f"signed names {', '.join(strange)}, none of {', '.join(names)}")
    draws = [_draws(posterior, name) for name in names]
    positive = tuple(
        bool((x > 0).all()) and n not in signed for n, x in zip(names, draws, strict=True)
    )
    z = np.stack([np.log(x) if p else x for p, x in zip(positive, draws, strict=True)])
    for name, own, log in zip(names, z, positive, strict=True):
        _refuse_poor(name, own, "log-normal" if log else "normal", tolerance)
    covariance = np.atleast_2d(np.cov(z)) * inflate**2
    if np.linalg.cond(covariance / np.sqrt(np.outer(*[covariance.diagonal()] * 2))) > 1e10:
        raise ValueError(f"of {', '.join(names)} some follow from the others; leave those out")
    return JointPrior(tuple(names), positive, z.mean(1), covariance)


def _draws(posterior: xr.DataTree, name: str) -> np.ndarray:
    """Return the draws of one parameter."""
    group = posterior["posterior"].dataset
    if name not in group:
        raise ValueError(
            f"the posterior lacks {name}; it has {', '.join(map(str, group.data_vars))}"
        )
    if set(group[name].dims) != {"chain", "draw"}:
        raise ValueError(f"{name} is not one number but has {group[name].dims}; leave it out")
    draws = group[name].values.astype(float).ravel()
    if not np.isfinite(draws).all() or np.ptp(draws) == 0:
        raise ValueError(
            f"{name} is constant or not finite in the posterior; popk.fixed holds a known value"
        )
    return draws


def _refuse_poor(name: str, z: np.ndarray, form: str, tolerance: float) -> None:
    """Refuse draws that are far from normal."""
    expected = [NormalDist().inv_cdf(p) for p in _PROBABILITIES]
    gaps = np.abs((np.quantile(z, _PROBABILITIES) - z.mean()) / z.std() - expected)
    worst = int(gaps.argmax())
    if gaps[worst] > tolerance:
        raise ValueError(
            f"the posterior of {name} is not {form}: its {100 * _PROBABILITIES[worst]:g}% quantile lies "
            f"{gaps[worst]:.2f} standard deviations from the matched one's (at most {tolerance:g}); write "
            f"a prior of your own, or accept this one with tolerance={gaps[worst] + 0.05:.1f}"
        )
