"""Imports that come late, when something is first asked for: optional libraries above all.

A fork waits until they are whole. A module that another thread was importing when the process
forked stays half imported in the child, and locked: a thread that needs it there waits for ever.
"""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

from uniroute_fast.errors import MissingExtraError

#: Held around an ``import`` within a function.
importing = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )


def imported(module: str, extra: str, what: str) -> Any:
    """Import an optional module.

    Parameters
    ----------
    module : str
        Its dotted name.
    extra : str
        The extra that installs it.
    what : str
        What needs it, for the message.

    Raises
    ------
    MissingExtraError
        It is not installed.

    Examples
    --------
    >>> imported("json", "fit", "an example").dumps([1])
    '[1]'
    >>> imported("no_such_module", "fit", "an example")
    Traceback (most recent call last):
        ...
    uniroute_fast.errors.MissingExtraError: an example: no_such_module is not installed; \
expected: pip install 'uniroute_fast[fit]'
    """
    try:
        with importing:
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what}: {module.split('.')[0]} is not installed; "
            f"expected: pip install 'uniroute_fast[{extra}]'"
        ) from error
