"""How does a noncompartmental analysis read as a table? One row a profile, units in the header."""

from typing import Any

import pandas as pd
import xarray as xr

#: Parameters of an extravascular dose, which hold for what is absorbed.
PER_F = ("CL", "Vz")
#: What a reader of the table needs least: the line of the terminal slope.
LINE = ("slope_intercept", "Clast_predicted")


def nca_table(found: xr.Dataset) -> pd.DataFrame:
    """Return the parameters of `nca` as a table: a row a subject or interval, units in the header.

    Parameters
    ----------
    found : Dataset
        As `popk.nca` returns it.

    Returns
    -------
    DataFrame
        Its index is ID, and dose where subjects have several intervals. Parameters that nobody has are
        left out; CL and Vz of extravascular doses are CL/F and Vz/F. The last column, ``flags``, holds
        the reasons why a value is missing or not to be relied on.

    Examples
    --------
    >>> import popk
    >>> found = popk.nca(popk.read_nonmem("data/indomethacin.csv"), route="bolus")
    >>> popk.nca_table(found)["Vss [L]"].round(2).tolist()
    [36.17, 19.56, 13.08, 17.73, 23.7, 16.6]
    """
    own: Any = found.drop_dims(["point", "flag"]).to_dataframe().reset_index()
    own = own[own["dose_number"] > 0] if "interval" in found.dims else own
    index = ["ID", *(["dose number"] if "interval" in found.dims else [])]
    rows = own.rename(columns={"subject": "ID", "dose_number": "dose number"}).set_index(index)
    extravascular = set(own["route"]) == {"extravascular"}
    per_f = "{0}/F" if extravascular else "{0} or {0}/F"
    some = "extravascular" in set(own["route"])
    columns = {}
    if rows["AUC_all"].equals(rows["AUC_last"]):
        rows = rows.drop(columns="AUC_all")
    for name in [n for n in found.data_vars if n in rows and n not in ("reason", *LINE)]:
        if rows[name].isna().all():
            continue
        unit = found[name].attrs.get("units", "1")
        known = per_f.format(name) if name in PER_F and some else str(name)
        columns[known if unit == "1" else f"{known} [{unit}]"] = rows[name]
    return pd.DataFrame({**columns, "flags": rows["reason"]})
