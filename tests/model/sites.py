"""Traces of parts of a model, for tests."""

import pytest
from numpyro import handlers

import popk


def trace_of(part, **given):
    """Return the trace of a part of a model, and what it returned."""
    seeded = handlers.seed(handlers.substitute(part, given), 0)
    tracer = handlers.trace(seeded)
    returned = tracer()
    return tracer.trace, returned


def sampled(trace):
    return [name for name, site in trace.items() if site["type"] == "sample"]


def plates(site):
    return {frame.dim: frame.name for frame in site["cond_indep_stack"]}


def refusal(part):
    with pytest.raises(popk.ModelError) as caught:
        trace_of(part)
    return str(caught.value)
