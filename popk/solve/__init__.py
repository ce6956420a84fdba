"""What are the amounts at each record? The one event loop."""

from popk.solve.linear import solve
from popk.solve.schedule import OVERLAPPING, PENDING, Dosing, Schedule

__all__ = ["OVERLAPPING", "PENDING", "Dosing", "Schedule", "solve"]
