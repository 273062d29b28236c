"""What is known of each LLM in the pool: the sums its profile was made from, and is refined from.

A posterior is kept as the sufficient statistics that it follows from (see `evidence`), because
these add up: outcomes that arrive later give the very profile that all outcomes at once give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.arrays import GREATEST_WEIGHT
from uniroute_fast._checks.scalars import shown
from uniroute_fast.errors import ArtifactError, InvalidArgumentError
from uniroute_fast.profiles.evidence import Evidence
from uniroute_fast.profiles.profilers import MeansProfiler, Profiles, Setting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.profiles.profilers import Profiler

#: Fields of a `Tally` with a value for each feature, and with one value.
COLUMNS, TOTALS = ("phi", "loss", "square"), ("count", "total", "total_square")

#: Parts of stored records: those of int64, the dtypes of the others, and what is no vector.
INTEGERS = ("model", "group", "pattern", "n_rows")
FLOATS: dict[str, type[np.floating]] = dict.fromkeys(
    ("gram", "scale", "weights", *COLUMNS, *TOTALS), np.float64
) | {"rows": np.float32}
DIMENSIONS = {"gram": 3, "rows": 2} | dict.fromkeys(COLUMNS, 2)

#: Stored numbers are at most this: their squares stay finite. Groups are numbered from 0.
LARGEST_SUM, LARGEST_GROUP = 1e24, 2**62

#: An LLM's outcomes count for more than this, however much was forgotten.
LEAST_COUNT = 1e-100


@dataclass(frozen=True, eq=False)
class Tally:
    """The outcomes of one LLM, summed up.

    The F x F matrix of products of features is the one thing in it that is large. LLMs that were
    profiled together share one; what an LLM has seen since is kept as the features themselves,
    until they would take as much room as a matrix of its own.

    Attributes
    ----------
    group : int
        LLMs that were added together: some profilers choose settings for all of these at once.
    gram : float64[F, F] or float64[0, 0]
        Shared sum of w phi phi'; never written to.
    scale : float
        What the shared sum counts for, after forgetting.
    rows : float32[n, F]
        Features of the prompts since.
    weights : float64[n]
        What each of them counts for.
    phi, loss, square : float64[F]
    count, total, total_square : float
        As in `Evidence`.
    """

    group: int
    gram: NDArray[np.float64]
    scale: float
    rows: NDArray[np.float32]
    weights: NDArray[np.float64]
    phi: NDArray[np.float64]
    loss: NDArray[np.float64]
    square: NDArray[np.float64]
    count: float
    total: float
    total_square: float

    @classmethod
    def each(cls, evidence: Evidence, group: int) -> list[Tally]:
        """Return one for each LLM of some evidence; those of one pattern share its matrix."""
        grams = [np.array(gram) for gram in evidence.gram]
        columns = [np.array(getattr(evidence, name).T) for name in COLUMNS]
        totals = [getattr(evidence, name).tolist() for name in TOTALS]
        none = np.zeros((0, len(evidence.phi)), np.float32)
        return [
            cls(group, grams[pattern], 1.0, none, np.zeros(0), *sums)
            for pattern, *sums in zip(evidence.pattern, *columns, *totals, strict=True)
        ]

    def full_gram(self) -> NDArray[np.float64]:
        """Return the sum of w phi phi' over all outcomes, float64[F, F]. O(n F²)."""
        if not len(self.rows):
            return self.gram if self.scale == 1.0 else self.scale * self.gram
        return self.scale * self.gram + (self.rows * self.weights[:, None]).T @ self.rows

    def plus(
        self,
        new: Evidence,
        rows: NDArray[np.float32],
        weights: NDArray[np.float64],
        kept: float = 1.0,
    ) -> Tally:
        """Return this and new outcomes of the same LLM.

        Parameters
        ----------
        new : Evidence
            Of one LLM.
        rows : float32[n, F]
            Features of the prompts behind `new`.
        weights : float64[n]
        kept : float
            What the older outcomes count for from now on, in [0, 1].
        """
        sums: dict[str, Any] = {
            name: kept * getattr(self, name) + getattr(new, name)[:, 0] for name in COLUMNS
        }
        totals: dict[str, Any] = {
            name: float(kept * getattr(self, name) + getattr(new, name)[0]) for name in TOTALS
        }
        tally = replace(self, scale=kept * self.scale, **sums, **totals)
        if not self.gram.size:
            return tally
        rows = np.concatenate([self.rows, rows])
        tally = replace(tally, rows=rows, weights=np.append(kept * self.weights, weights))
        if 2 * len(rows) <= len(self.gram):
            return tally
        return replace(tally, gram=tally.full_gram(), scale=1.0, rows=rows[:0], weights=np.zeros(0))


class Records:
    """The tallies of the LLMs of one router, by name.

    Not thread-safe: the router takes turns for it.

    Notes
    -----
    Memory is O(F M) for F features and M LLMs, O(F²) for each batch that was added together, and at
    most O(F²) more for each LLM with more than F/2 outcomes of its own since.
    """

    def __init__(self, tallies: Mapping[str, Tally] | None = None) -> None:
        self._known = dict(tallies or {})
        # As read from a file: taken apart when first asked for, which routing never does.
        self._unread: tuple[Mapping[str, NDArray[Any]], Sequence[str]] | None = None
        # Of the LLMs whose profiles were made since they were recorded or restored.
        self._errors: dict[str, NDArray[np.float32]] = {}
        # Where a setting is chosen for a whole group: its errors on each LLM's tally as it is now,
        # and the setting that the group's profiles were made with. What is not known is worked out
        # when it is needed.
        self._left_out: dict[str, NDArray[np.float64]] = {}
        self._settings: dict[int, int] = {}

    @property
    def _tallies(self) -> dict[str, Tally]:
        if self._unread is not None:
            arrays, models = self._unread
            self._known.update(_taken_apart(arrays, models))
            self._unread = None
        return self._known

    def __contains__(self, name: str) -> bool:
        return name in self._tallies

    def __getitem__(self, name: str) -> Tally:
        return self._tallies[name]

    def copy(self) -> Records:
        """Return one that changes by itself."""
        copied = Records(self._known)
        copied._errors, copied._unread = dict(self._errors), self._unread
        copied._left_out, copied._settings = dict(self._left_out), dict(self._settings)
        return copied

    def add(self, names: Sequence[str], evidence: Evidence, profiles: Profiles) -> None:
        """Record LLMs that were profiled together from this evidence."""
        group = 1 + max((tally.group for tally in self._tallies.values()), default=-1)
        tallies = dict(zip(names, Tally.each(evidence, group), strict=True))
        self._tallies.update(tallies)
        self.note(names, profiles)
        if profiles.setting is not None:
            self._left_out |= dict(zip(names, profiles.setting.errors.T.copy(), strict=True))
            self._settings[group] = profiles.setting.index

    def note(self, names: Sequence[str], profiles: Profiles) -> None:
        """Keep the standard errors of profiles that were made from these records."""
        errors = np.ascontiguousarray(profiles.standard_error.T)
        self._errors |= dict(zip(names, errors, strict=True))

    def remove(self, names: Iterable[str]) -> None:
        """Forget LLMs, if they are known."""
        for name in names:
            self._tallies.pop(name, None)
            self._errors.pop(name, None)
            self._left_out.pop(name, None)

    def check(self, names: Iterable[str]) -> None:
        """Raise `InvalidArgumentError` for the first LLM that nothing is known of."""
        for name in names:
            if name not in self._tallies:
                raise InvalidArgumentError(
                    f"model: nothing is recorded of the outcomes of {name!r} (it was inserted with "
                    "a ready profile, or saved without records); expected one that `add_models` "
                    "profiled"
                )

    def with_tallies(self, changes: Mapping[str, Tally]) -> Records:
        """Return records in which these LLMs have these tallies."""
        changed = self.copy()
        changed._tallies.update(changes)
        for name in changes:
            changed._left_out.pop(name, None)
        return changed

    def evidence(self, names: Sequence[str]) -> Evidence:
        """Return what is known of some LLMs, in that order. O(M F + P F²) for P patterns."""
        tallies = [self._tallies[name] for name in names]
        grams: list[NDArray[np.float64]] = []
        pattern = []
        known: dict[tuple[int, float, int], int] = {}
        for m, tally in enumerate(tallies):
            # With rows of its own no other LLM has the same sum.
            key = (id(tally.gram), tally.scale, m if len(tally.rows) else -1)
            if key not in known:
                known[key] = len(grams)
                grams.append(tally.full_gram())
            pattern.append(known[key])
        sums = [np.stack([getattr(t, name) for t in tallies], axis=1) for name in COLUMNS]
        totals = [np.array([getattr(t, name) for t in tallies]) for name in TOTALS]
        return Evidence(np.stack(grams), np.array(pattern, np.intp), *sums, *totals)

    def profiles(self, profiler: Profiler, names: Sequence[str]) -> tuple[list[str], Profiles]:
        """Profile some LLMs from all that is known of them.

        Where the profiler chooses a setting for all LLMs of a group at once, and would choose
        another one now, the others of the group come too.

        Returns
        -------
        list of str, Profiles
            Which LLMs, and their profiles in that order.

        Notes
        -----
        Under a joint profiler O(K) for each LLM and O(M) for its group; O(K M) where the group's
        setting changes, and the first time after loading.
        """
        if not isinstance(profiler, MeansProfiler):
            return list(names), profiler.profile(self.evidence(names))
        groups: dict[int, list[str]] = {self._tallies[name].group: [] for name in names}
        for name, tally in self._tallies.items():
            if tally.group in groups:
                groups[tally.group].append(name)
        wanted = set(names)
        made, found = [], []
        for group, members in groups.items():
            setting = self._setting(profiler, members)
            settled = self._settings.get(group) == setting.index
            self._settings[group] = setting.index
            these = [name for name in members if name in wanted] if settled else members
            made += these
            found.append(profiler.profile(self.evidence(these), setting))
        return made, Profiles(
            np.hstack([profiles.psi for profiles in found]),
            np.hstack([profiles.standard_error for profiles in found]),
            np.concatenate([profiles.mean for profiles in found]),
        )

    def _setting(self, profiler: MeansProfiler, members: Sequence[str]) -> Setting:
        """Return the setting for a group; only LLMs with new outcomes are looked at again."""
        unknown = [name for name in members if name not in self._left_out]
        if unknown:
            errors = profiler.errors(self.evidence(unknown))
            self._left_out |= dict(zip(unknown, errors.T.copy(), strict=True))
        return Setting.of(np.stack([self._left_out[name] for name in members], axis=1))

    def standard_errors(self, profiler: Profiler, models: Sequence[str]) -> NDArray[np.float32]:
        """Return `Profiles.standard_error` of these LLMs, float32[K, M]; NaN for the unknown."""
        missing = [n for n in models if n in self._tallies and n not in self._errors]
        if missing:
            # Nothing is published here, so the settings in force stay what they are.
            probe = self.copy()
            self.note(*probe.profiles(profiler, missing))
            self._left_out = probe._left_out
        unknown = np.full(profiler.map.n_clusters, np.nan, np.float32)
        columns = [self._errors.get(name, unknown) for name in models]
        return np.stack(columns, axis=1) if columns else np.zeros((len(unknown), 0), np.float32)

    def to_arrays(self, models: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return what `from_arrays` restores the records of these LLMs from."""
        index = [i for i, name in enumerate(models) if name in self._tallies]
        if not index:
            return {}
        tallies = [self._tallies[models[i]] for i in index]
        grams = {id(tally.gram): tally.gram for tally in tallies}
        place = {key: p for p, key in enumerate(grams)}
        return {
            "model": np.array(index, np.int64),
            "group": np.array([tally.group for tally in tallies], np.int64),
            "gram": np.stack(list(grams.values())),
            "pattern": np.array([place[id(tally.gram)] for tally in tallies], np.int64),
            "scale": np.array([tally.scale for tally in tallies]),
            "rows": np.concatenate([tally.rows for tally in tallies]),
            "weights": np.concatenate([tally.weights for tally in tallies]),
            "n_rows": np.array([len(tally.rows) for tally in tallies], np.int64),
            **{name: np.stack([getattr(t, name) for t in tallies], axis=1) for name in COLUMNS},
            **{name: np.array([getattr(t, name) for t in tallies]) for name in TOTALS},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], models: Sequence[str]) -> Records:
        """Restore records from `to_arrays`; none from no arrays.

        Raises
        ------
        ArtifactError
            A part is missing, or parts do not fit together.
        """
        records = cls()
        if arrays:
            try:
                _check(arrays, len(models))
            except KeyError as error:
                raise ArtifactError(f"records: part {error} is missing") from error
            except ValueError as error:
                raise ArtifactError(f"records: {error}") from error
            records._unread = arrays, models
        return records


def _taken_apart(
    arrays: Mapping[str, NDArray[Any]], models: Sequence[str]
) -> Iterator[tuple[str, Tally]]:
    """Return the tallies that checked arrays hold, by name."""
    grams, ends = list(arrays["gram"]), np.cumsum(arrays["n_rows"])[:-1]
    columns = zip(
        arrays["group"].tolist(),
        [grams[p] for p in arrays["pattern"]],
        arrays["scale"].tolist(),
        np.split(arrays["rows"], ends),
        np.split(arrays["weights"], ends),
        *(np.ascontiguousarray(arrays[name].T) for name in COLUMNS),
        *(arrays[name].tolist() for name in TOTALS),
        strict=True,
    )
    for index, parts in zip(arrays["model"], columns, strict=True):
        yield models[index], Tally(*parts)


def _check(arrays: Mapping[str, NDArray[Any]], n_models: int) -> None:
    """Raise `ValueError` unless the arrays are what outcomes of R LLMs add up to."""
    _check_shapes(arrays)
    for name, end in (("model", n_models), ("pattern", len(arrays["gram"]))):
        if not ((arrays[name] >= 0) & (arrays[name] < end)).all():
            raise ValueError(f"{name} has an index outside 0 to {end - 1}")
    if len(np.unique(arrays["model"])) < len(arrays["model"]):
        raise ValueError("model names an LLM twice")
    group = arrays["group"]
    if not ((group >= 0) & (group < LARGEST_GROUP)).all():
        raise ValueError(f"group has a number outside 0 to {LARGEST_GROUP - 1}")
    _check_sums(arrays)
    for p, gram in enumerate(arrays["gram"]):
        if not _is_sum_of_products(gram):
            raise ValueError(f"gram {p} is no sum of products of features")


def _check_shapes(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise `ValueError` unless dtypes and shapes are those of R LLMs and F features throughout."""
    for name in (*INTEGERS, *FLOATS):
        wanted = np.dtype(np.int64 if name in INTEGERS else FLOATS[name])
        if arrays[name].dtype != wanted or arrays[name].ndim != DIMENSIONS.get(name, 1):
            found = f"{arrays[name].dtype} of {arrays[name].ndim} dimensions"
            raise ValueError(f"{name}: {found}; expected {wanted} of {DIMENSIONS.get(name, 1)}")
    if unknown := sorted(arrays.keys() - {*INTEGERS, *FLOATS}):
        raise ValueError(f"unknown part {shown(unknown[0])!r}")
    (r,), (f, _) = arrays["model"].shape, arrays["phi"].shape
    gram, rows, own = arrays["gram"], len(arrays["rows"]), arrays["n_rows"]
    # Each first: a sum of what a file holds may overflow.
    if not ((own >= 0) & (own <= rows)).all() or own.sum() != rows:
        raise ValueError(f"n_rows does not add up to the {rows} rows")
    side = gram.shape[-1]
    expected = {
        **dict.fromkeys(("group", "pattern", "scale", "n_rows", *TOTALS), (r,)),
        **dict.fromkeys(COLUMNS, (f, r)),
        "gram": (len(gram), side, side),
        "rows": (rows, f),
        "weights": (rows,),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name}: shape {arrays[name].shape}; expected {shape}")
    if side not in (0, f):
        raise ValueError(f"products of {side} features; expected {f}")


def _check_sums(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise `ValueError` unless the numbers are what losses and weights can add up to."""
    for name in FLOATS:
        if not (np.abs(arrays[name]) <= LARGEST_SUM).all():
            raise ValueError(f"{name} has a value that is not finite, or above {LARGEST_SUM:g}")
    for name, most in (("scale", 1.0), ("weights", GREATEST_WEIGHT)):
        if not ((arrays[name] >= 0) & (arrays[name] <= most)).all():
            raise ValueError(f"{name} has a value that is not 0 to {most:g}")
    count, total, square = (arrays[name] for name in TOTALS)
    if not (count > LEAST_COUNT).all():
        raise ValueError("count has a value that is not above 0")
    # Of losses, which are 0 to 1; rounding apart.
    slack = 1e-9 * count
    if not ((total >= -slack) & (total <= count + slack)).all():
        raise ValueError("total has a value that is not 0 to its count")
    if not ((square * count >= total**2 - slack * count) & (square <= total + slack)).all():
        raise ValueError("total_square has a value that no losses of its total add up to")


def _is_sum_of_products(gram: NDArray[np.float64]) -> bool:
    """Tell whether a matrix is symmetric and has no negative eigenvalue, rounding apart. O(F³)."""
    if not gram.size:
        return True
    slack = 1e-9 * np.abs(gram).max() + 1e-12
    if np.abs(gram - gram.T).max() > slack:
        return False
    try:
        np.linalg.cholesky(gram + slack * np.eye(len(gram)))
    except np.linalg.LinAlgError:
        return False
    return True
