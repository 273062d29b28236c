"""The exceptions that this package raises.

All derive from `UniRouteError`; each is also the built-in exception that it resembles, so that
``except ValueError`` keeps working for callers who do not know this package.
"""

from __future__ import annotations

from uniroute_fast._native import legible


class UniRouteError(Exception):
    """Base of every error that this package raises on purpose.

    Messages quote names and values that come from outside: each is printable, and of 2,000 bytes at
    most.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(legible(arg) if isinstance(arg, str) else arg for arg in args))


class InvalidArgumentError(UniRouteError, ValueError):
    """An argument has a value that cannot be used: shape, range, NaN, emptiness."""


class ArgumentTypeError(UniRouteError, TypeError):
    """An argument has a type or dtype that cannot be used."""


class UnknownModelError(UniRouteError, KeyError):
    """A model name that the pool does not hold."""

    def __str__(self) -> str:
        """Return the message itself: `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


class DuplicateModelError(UniRouteError, ValueError):
    """A model name that the pool already holds, or that appears twice in one call."""


class EmptyPoolError(UniRouteError, RuntimeError):
    """Routing was asked of a pool without models."""


class NoCandidateError(UniRouteError, LookupError):
    """No LLM may answer: all are excluded by constraints, or disabled."""


class BudgetExhaustedError(UniRouteError, RuntimeError):
    """What is left of a budget pays for no LLM that may answer."""


class UnroutableError(UniRouteError, ValueError):
    """A single prompt that cannot be routed: empty, or without anything the embedder knows."""


class ArtifactError(UniRouteError, ValueError):
    """A file that is not an artifact of this package, is damaged, or is of a newer version."""


class ArtifactIOError(UniRouteError, OSError):
    """The operating system refused to read or write an artifact."""


class DatasetError(UniRouteError, ValueError):
    """A dataset folder that cannot be used; the message names file, column and row."""


class UnsupportedIsaError(UniRouteError, ImportError):
    """``UNIROUTE_ISA`` names an instruction set that is unknown or that this CPU lacks."""


class MissingExtraError(UniRouteError, ImportError):
    """An optional dependency is needed; the message says which extra installs it."""
