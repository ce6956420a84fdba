"""What are the amounts at each record? The one event loop."""

from popk.solve.linear import solve
from popk.solve.schedule import OVERLAPPING, PENDING, Dosing, Schedule
from popk.solve.superposition import observed

__all__ = ["OVERLAPPING", "PENDING", "Dosing", "Schedule", "observed", "solve"]
