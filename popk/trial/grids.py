"""How do rows become arrays of shape [subject, record]?"""

from typing import Any

import numpy as np
import pandas as pd


def filled(values: Any, size: int, blank: float | int | str) -> np.ndarray:
    """Return an array whose last axis is filled up, with a value or its own last one."""
    array = np.asarray(values)
    missing = [(0, 0)] * (array.ndim - 1) + [(0, size - array.shape[-1])]
    if blank == "edge":
        return np.pad(array, missing, mode="edge")
    return np.pad(array, missing, constant_values=np.asarray(blank, dtype=array.dtype))


def places(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's subject and its place among the subject's records."""
    return pd.factorize(frame["ID"])[0], frame.groupby("ID", sort=False).cumcount().to_numpy()


def by_record(
    values: np.ndarray, subject: np.ndarray, record: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return a covariate as [subject, 1] if it is constant in every subject, else [subject, record]."""
    last = pd.Series(values).groupby(subject).transform("last").to_numpy()
    first = pd.Series(values).groupby(subject).first().to_numpy()
    grid = np.repeat(
        pd.Series(values).groupby(subject).last().to_numpy()[:, None], shape[1], axis=1
    )
    grid[subject, record] = values
    return first[:, None] if np.array_equal(last, values, equal_nan=True) else grid
