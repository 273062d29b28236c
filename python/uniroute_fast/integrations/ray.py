"""Ray Data: a dataset routed by actors that load the pool once each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported
from uniroute_fast.batch.decide import BatchRouter

if TYPE_CHECKING:
    import os


def route_dataset(
    dataset: Any,
    pool: str | os.PathLike[str],
    cost_weight: float = 0.0,
    *,
    workers: int = 1,
    threads: int = 1,
    batch_rows: int = 32_768,
    **columns: Any,
) -> Any:
    """Return a dataset with the decision columns appended.

    Parameters
    ----------
    dataset : ray.data.Dataset
    pool : path
        That every worker can read.
    cost_weight : float
    workers : int
        Actors, of ``threads`` cores each. A worker that dies is replaced, and what it was at is
        done again: decisions depend on the prompt alone, so nothing changes.
    threads : int
        Of each worker.
    batch_rows : int
        Most rows of a batch.
    **columns
        ``text_column``, ``messages_column``, ``prefix``: as in `BatchRouter`.

    Returns
    -------
    ray.data.Dataset
        Lazy, as Ray's are.

    Raises
    ------
    MissingExtraError
        Ray is not installed (extra ``ray``).
    """
    data = imported("ray.data", "ray", "Ray Data")
    return dataset.map_batches(
        _Worker,
        fn_constructor_args=(str(pool), cost_weight, threads),
        fn_constructor_kwargs=columns,
        batch_format="pyarrow",
        batch_size=batch_rows,
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=threads,
        zero_copy_batch=True,
    )


class _Worker(BatchRouter):
    """A `BatchRouter` in a process of its own."""

    def __init__(self, pool: str, cost_weight: float, threads: int, **columns: Any) -> None:
        from uniroute_fast import set_num_threads

        super().__init__(pool, cost_weight, **columns)
        set_num_threads(threads)
        self.load()
