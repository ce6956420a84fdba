"""Which systems, beyond plain compartments, does popk know? For `popk.ode`, and effects for any model."""

from popk.structural.binding import (
    free_concentration,
    tmdd,
    tmdd_michaelis_menten,
    tmdd_quasi_equilibrium,
    tmdd_quasi_steady_state,
)
from popk.structural.effects import (
    emax,
    hill,
    indirect_response,
    myelosuppression,
    sigmoid_emax,
    tumor_growth_inhibition,
    tumor_resistance,
)
from popk.structural.kinetics import (
    autoinduction,
    effect_compartment,
    enterohepatic,
    michaelis_menten,
    parent_metabolite,
    urine_collection,
)

__all__ = [
    "autoinduction",
    "effect_compartment",
    "emax",
    "enterohepatic",
    "free_concentration",
    "hill",
    "indirect_response",
    "michaelis_menten",
    "myelosuppression",
    "parent_metabolite",
    "sigmoid_emax",
    "tmdd",
    "tmdd_michaelis_menten",
    "tmdd_quasi_equilibrium",
    "tmdd_quasi_steady_state",
    "tumor_growth_inhibition",
    "tumor_resistance",
    "urine_collection",
]
