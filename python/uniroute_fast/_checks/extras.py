"""Imports that come late, when something is first asked for: a fork waits until they are whole.

A module that another thread was importing when the process forked stays half imported in the child,
and locked: a thread that needs it there waits for ever.
"""

from __future__ import annotations

import os
import threading

#: Held around an ``import`` within a function.
importing = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )
