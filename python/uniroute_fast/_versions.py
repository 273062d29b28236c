"""What runs here: versions, instruction set, threads, build profile."""

from __future__ import annotations

import platform
import sys
import warnings

import numpy as np

from uniroute_fast import _native


def versions() -> dict[str, str]:
    """Return what `show_versions` prints, by name."""
    return {
        "uniroute_fast": _native.__version__,
        "isa": _native.isa(),
        "isas available": ", ".join(map(_listed, _native.available_isas())),
        "threads": str(_native.get_num_threads()),
        "build profile": _native.build_profile,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def _listed(isa: str) -> str:
    """Return the name of an instruction set, with a word on one that nothing chooses by itself."""
    return "amx (only by UNIROUTE_ISA=amx)" if isa == "amx" else isa


def show_versions() -> None:
    """Print version, instruction sets, threads and build profile: what a bug report needs.

    Examples
    --------
    >>> import uniroute_fast as uf
    >>> uf.show_versions()  # doctest: +ELLIPSIS
    uniroute_fast   0...
    """
    for name, value in versions().items():
        print(f"{name:<15} {value}")


def warn_if_debug_build() -> None:
    """Warn that the extension was built without ``--release`` and is many times slower."""
    if _native.build_profile != "release":
        warnings.warn(
            "uniroute_fast was built without --release and is many times slower than it should be",
            RuntimeWarning,
            stacklevel=3,
        )
