"""Parts of trials, and levels as they are told to a twin."""

import popk


def part(trial, rows):
    """Return some rows of a trial as a trial."""
    table = trial.to_dataframe()
    attrs = table.attrs
    table = table.iloc[rows]
    table.attrs = attrs
    return popk.read_nonmem(table)


def level(time, value, **more):
    """Return a level of subject 3 of the theophylline trial as a record."""
    return {"TIME": time, "DV": value, "WT": 70.5, **more}
