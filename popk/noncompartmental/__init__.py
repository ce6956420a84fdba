"""What do the levels say without a model?"""

from popk.noncompartmental.analysis import nca
from popk.noncompartmental.table import nca_table

__all__ = ["nca", "nca_table"]
