"""What may be observed in the place of a level? An endpoint: its priors, its rules and its law."""

from typing import Any, NamedTuple

import numpyro.distributions as dist
from jaxtyping import Bool, Float

from popk.endpoints.outcomes import Law, Outcome, Values
from popk.endpoints.risk import Events, Risk
from popk.priors import Known
from popk.records.table import Rule
from popk.trial import Array, Observations

#: How the names of the endpoints' parameters begin.
PARAMETERS = ("dispersion", "zeros", "cutpoint", "step")


class Endpoint(NamedTuple):
    """What is observed in the place of a level with a residual error.

    Attributes
    ----------
    name : str
        What it is: "counts", "binary", "categories" or "events".
    priors : dict of str to Distribution or Fixed
        The prior of each of its parameters.
    rules : tuple of Rule
        What its records must keep, on tables in which OWN marks the records that count.
    law : Law or Risk
        How outcomes are distributed.
    signed : bool
        Whether predictions may be negative.
    """

    name: str
    priors: dict[str, Known]
    rules: tuple[Rule, ...]
    law: Law | Risk
    signed: bool = False


def own_rule(name: str, says: str, broken: Any) -> Rule:
    """Return a rule of DV that records of an endpoint break where `broken` says so of the table."""
    return Rule(name, "DV", lambda f: f["OWN"] & f["BLQ"].eq(0) & broken(f), says)


#: An outcome has no limit of quantification.
NEVER_BELOW = Rule(
    "only a level has a limit of quantification",
    "BLQ",
    lambda f: f["OWN"] & (f["BLQ"].eq(1) | f["ALQ"].eq(1)),
    "BLQ is {BLQ} and ALQ {ALQ}, but the model observes an event, a category or a count here; set both "
    "0, or MDV 1",
)


def distribution_of(
    endpoint: Endpoint,
    prediction: Float[Array, "s r"],
    values: Values,
    observations: Observations,
    own: Bool[Array, " o"],
    *,
    present: bool = True,
) -> dist.Distribution:
    """Return the distribution of an endpoint's outcomes on the flat observation axis.

    Parameters
    ----------
    endpoint : Endpoint
    prediction : Float[Array, "subject record"]
        The mean count, the logit or the hazard at every record.
    values : mapping of str to Float[Array, ""]
        The values of the endpoint's priors.
    observations : Observations
    own : Bool[Array, "observation"]
        The records of this kind.
    present : bool
        Whether there is any.
    """
    ipred = prediction[observations.subject, observations.record]
    if isinstance(endpoint.law, Risk):
        return Events(
            ipred, endpoint.law, observations, own, subjects=len(prediction), present=present
        )
    return Outcome(ipred, values, endpoint.law, observations, own)
