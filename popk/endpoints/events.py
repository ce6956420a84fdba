"""Which events are there? One that ends the follow-up, or events that come again and again."""

from jaxtyping import Float

from popk.endpoints.endpoint import NEVER_BELOW, Endpoint, own_rule
from popk.endpoints.risk import Risk
from popk.records.table import Rule
from popk.trial import Array

_ZERO_ONE = own_rule(
    "an event is 0 or 1",
    "DV is {DV}; write 1 for an event at TIME and 0 for none so far, or set MDV 1 where it is unknown",
    lambda f: ~f["DV"].isin([0, 1]),
)

_ONE_CLOCK = Rule(
    "events have one clock",
    "TIME",
    lambda f: (
        f["OWN"]
        & f.groupby("ID", sort=False)["TIME"].diff().lt(0).groupby(f["ID"], sort=False).cummax()
    ),
    "TIME has gone back further up, but the hazard needs one clock for each subject; count TIME on "
    "from the subject's first record",
)


def _past(f):
    """Return how many events of the same subject stand above each record."""
    event = f["OWN"] & f["DV"].eq(1)
    return event.groupby(f["ID"], sort=False).cumsum() - event


_ONCE = own_rule(
    "nothing follows an event that comes once",
    "a record of events follows the subject's event; remove it or set MDV 1, or give "
    "popk.time_to_event(..., repeated=True) where events come again",
    lambda f: _past(f).gt(0),
)


def time_to_event(
    cumulative_hazard: Float[Array, "s r"], *, repeated: bool = False, interval: bool = False
) -> Endpoint:
    r"""Return the endpoint of an event, or of repeated ones, whose hazard h(t) is the prediction.

    .. math:: \log L_j = d_j \log h(t_j) - [H(t_j) - H(t_{j-1})], \qquad H(t) = \int_0^t h(u)\,du

    DV is 1 at an event and 0 where there was none up to TIME: at the end of follow-up (censored), or
    at any record before. A record contributes the interval since the subject's last one of its kind
    with MDV 0, the first one that since H was 0. So H counts from where a subject comes to be
    at risk; of one that came late, subtract H at that moment.

    Parameters
    ----------
    cumulative_hazard : Float[Array, "subject record"]
        H at every record [pure number]: of a closed form such as `weibull_hazard`, or the amount in a
        compartment of `ode` whose rate is the hazard.
    repeated : bool
        Whether events come again; without, nothing may follow a subject's event.
    interval : bool
        Whether DV 1 says that an event lies between the last record and this one, and not when:
        it contributes :math:`\log(1 - e^{-\Delta H})`, and the prediction h is not used.

    References
    ----------
    .. [1] Holford N (2013). A time to event tutorial for pharmacometricians. CPT Pharmacometrics Syst
       Pharmacol 2:e43. doi:10.1038/psp.2013.18
    .. [2] Karlsson KE, Plan EL, Karlsson MO (2011). Performance of three estimation methods in repeated
       time-to-event modeling. AAPS J 13:83-91. doi:10.1208/s12248-010-9248-3
    """
    rules = (_ZERO_ONE, NEVER_BELOW, _ONE_CLOCK, *(() if repeated else (_ONCE,)))
    return Endpoint("events", {}, rules, Risk(cumulative_hazard, repeated, interval))
