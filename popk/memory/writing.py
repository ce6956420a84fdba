"""What may be written down? JSON without doubtful numbers, names that say something, times with a zone.

References
----------
.. [1] Rundgren A, Jordan B, Erdtman S (2020). JSON canonicalization scheme. RFC 8785.
   doi:10.17487/RFC8785
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

#: The longest ID, author or record ID [characters].
_LONGEST = 200


class StoreError(ValueError):
    """What cannot be remembered, or a store that cannot be read, written or trusted."""


def canonical(value: Any, where: str = "payload") -> str:
    """Return a value as the one JSON text that stands for it.

    Keys are sorted, nothing is spaced and all is ASCII, in the manner of [1]_; numbers are written as
    Python does, shortest first, so that reading them back gives the same number.

    Parameters
    ----------
    value : object
        Objects, lists, text, numbers, true, false and null, as JSON has them.
    where : str
        What the value is called in an error.

    Raises
    ------
    StoreError
        Something in it is not JSON, or a number is not finite; the error says where.
    """
    _refuse_foreign(value, where)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse_foreign(value: Any, where: str) -> None:
    """Refuse what JSON cannot say, by the place where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise StoreError(
                    f"{where} has the key {key!r}; keys are text, such as {str(key)!r}"
                )
            _refuse_foreign(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_foreign(inner, f"{where}[{i}]")
    elif type(value) is float:
        if not math.isfinite(value):
            raise StoreError(
                f"{where} is {value}; JSON has finite numbers only: give null, or leave it out"
            )
    elif value is not None and type(value) not in (str, int, bool):
        raise StoreError(
            f"{where} is a {type(value).__name__}, which JSON does not have; give a dict, list, str, "
            f"int, float, bool or None (of NumPy: x.item() or x.tolist())"
        )


def named(value: Any, what: str) -> str:
    """Return a name without the space around it.

    Parameters
    ----------
    value : object
        An ID, an author, a reason.
    what : str
        What it is called in an error.

    Raises
    ------
    StoreError
        It is no text, empty, too long, or has characters that cannot be printed.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise StoreError(f"{what} is {value!r}; give text that is not empty")
    if len(text) > _LONGEST or not text.isprintable():
        raise StoreError(
            f"{what} is {text[:40]!r}; give at most {_LONGEST} characters that can be printed"
        )
    return text


def moment(value: Any, what: str) -> str:
    """Return a time in UTC, as ISO 8601 text of one width, so that text sorts as time does.

    Parameters
    ----------
    value : datetime or str
        With a time zone; a str in ISO 8601.
    what : str
        What it is called in an error.

    Raises
    ------
    StoreError
        It is no time, or has no time zone.
    """
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        when = None
    if not isinstance(when, datetime):
        raise StoreError(
            f"{what} is {value!r}; give a datetime or ISO 8601 text, such as 2026-11-23T08:30:00Z"
        )
    if when.tzinfo is None or when.utcoffset() is None:
        raise StoreError(
            f"{what} is {value!s}, without a time zone; say which, such as "
            f"{when.isoformat(timespec='seconds')}Z for UTC"
        )
    return _in_utc(when)


def _in_utc(when: datetime) -> str:
    """Return an aware time as text."""
    text = when.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


def identified(model: Any) -> dict[str, Any] | None:
    """Return what a model is: name, version, and the SHA-256 of its source and its posterior.

    Parameters
    ----------
    model : Run or mapping or None
        A run says it of itself; version is that of popk that fitted it, run where the folder is.

    Raises
    ------
    StoreError
        It is neither, or lacks name, source or posterior.
    """
    if model is None:
        return None
    if info := getattr(model, "info", None):
        files = info["files"]
        return {
            "name": info["model"],
            "version": str(info.get("versions", {}).get("popk", "")),
            "source": files["model.py"],
            "posterior": files["posterior.nc"],
            "run": str(model.path.resolve()),
        }
    if not isinstance(model, Mapping) or not {"name", "source", "posterior"} <= set(model):
        raise StoreError(
            f"model is {model!r:.80}; give a popk.Run, or a dict of name, version, source and posterior "
            f"(the last two SHA-256)"
        )
    return dict(model)
