"""Legs and right-hand sides to walk in tests."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from popk.solve.legs import Legs


def lanes_of(tree, lanes):
    """Return a pytree with a leading axis of lanes, all the same."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (lanes, *np.shape(x))), tree)


def legs_of(times, n, *, jump=None, keep=None, hold=None, switch=None, on=None):
    """Return the legs of one lane, which begins at the first of its times; by default nothing happens."""
    times = np.asarray(times, dtype=float)
    e = len(times) - 1

    def given(value, default):
        table = np.full((e, n), float(default))
        for event, row in (value or {}).items():
            table[event] = row
        return jnp.asarray(table)

    held = np.ones(e)
    for event in hold or ():
        held[event] = 0.0
    return Legs(
        start=jnp.asarray(times[:-1]), duration=jnp.asarray(np.diff(times)),
        keep=given(keep, 1), jump=given(jump, 0), hold=jnp.asarray(held), switch=given(switch, 0),
        on=None if on is None else given(on, 1),
    )  # fmt: skip


def michaelis_menten(t, A, p, _):
    """One compartment with absorption, elimination by one enzyme."""
    depot, central = A
    absorbed = p["KA"] * depot
    C = central / p["V"]
    return jnp.stack([-absorbed, absorbed - p["VMAX"] * C / (p["KM"] + C)])


def binding(t, A, p, _):
    """Ligand, receptor and complex: full target-mediated disposition, stiff where kon is large."""
    L, R, LR = A
    bound = p["kon"] * L * R - p["koff"] * LR
    return jnp.stack([
        -p["kel"] * L - bound, p["ksyn"] - p["kdeg"] * R - bound, bound - p["kint"] * LR,
    ])  # fmt: skip


def by_scipy(rhs, initial, legs, p, varying=None, **options):
    """Return the amounts after each event of one lane by SciPy, from a right-hand side of ours."""
    numeric = jax.jit(rhs)
    amounts, inflow, after = np.asarray(initial, float), np.zeros(len(initial)), []
    for e in range(len(legs.duration)):
        leg = jax.tree.map(lambda x, e=e: np.asarray(x[e]), legs)
        on = np.ones(len(initial)) if legs.on is None else leg.on
        v = jax.tree.map(lambda x, e=e: x[e], varying)
        amounts = amounts * on
        if leg.duration > 0:
            amounts = solve_ivp(
                lambda t, A, on=on, r=inflow, v=v: on * (np.asarray(numeric(t, on * A, p, v)) + r),
                (leg.start, leg.start + leg.duration), amounts, **options,
            ).y[:, -1]  # fmt: skip
        amounts = leg.keep * amounts + leg.jump
        inflow = leg.hold * inflow + leg.switch
        after.append(amounts)
    return np.stack(after)
