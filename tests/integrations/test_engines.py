"""Engines give what one process gives."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import uniroute_fast as uf
from made_up import DATA
from uniroute_fast import errors
from uniroute_fast.batch import COLUMNS, BatchRouter


def engine(name: str, extra: str):
    """Import an engine; skip where it is not installed, unless `UNIROUTE_ENGINES` names it."""
    if extra in os.environ.get("UNIROUTE_ENGINES", "").split(","):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed (extra {extra})")


def log(rows: int = 2000) -> pa.Table:
    rng = np.random.default_rng(1)
    texts: list[str | None] = [DATA.texts[i] for i in rng.integers(len(DATA.texts), size=rows)]
    texts[3:7] = [None, "", " \t", "zzyzx"]
    return pa.table({"id": np.arange(rows), "text": pa.array(texts, pa.string())})


@pytest.fixture(scope="module")
def router(pool: Path) -> BatchRouter:
    return BatchRouter(pool, 0.05)


@pytest.fixture(scope="module")
def routed(router: BatchRouter) -> list[dict]:
    """What one process gives."""
    return router(log()).to_pylist()


def test_polars_frames_and_expressions(router, routed):
    pl = engine("polars", "polars")
    from uniroute_fast.integrations.polars import route_expr, route_frame

    frame = pl.from_arrow(log())
    assert route_frame(frame, router).to_dicts() == routed
    lazy = route_frame(frame.lazy(), router)
    assert lazy.collect_schema().names() == ["id", "text", *COLUMNS]
    assert lazy.filter(pl.col("status") == "ok").collect().height == len(routed) - 4
    structs = frame.with_columns(route_expr("text", router).alias("route"))
    assert structs.unnest("route").to_dicts() == routed
    assert route_frame(frame.head(0), router).columns == ["id", "text", *COLUMNS]


def test_duckdb_calls_the_router(router, routed):
    duckdb = engine("duckdb", "duckdb")
    from uniroute_fast.integrations.duckdb import register

    table = log()
    with duckdb.connect() as connection:
        register(connection, router)
        connection.register("log", table)
        query = (
            "SELECT id, text, unnest(route) FROM (SELECT *, uniroute(text) AS route FROM log) "
            "ORDER BY id"
        )
        found = connection.sql(query).to_arrow_table().to_pylist()
    assert found == routed


@pytest.fixture
def dask():
    """Dask's data frames, worked on by threads of this process."""
    dask = engine("dask", "dask")
    engine("dask.dataframe", "dask")
    with dask.config.set(scheduler="threads"):
        yield dask


def records(frame) -> list[dict]:
    """Rows of a pandas frame as Arrow has them, nulls as None."""
    return pa.Table.from_pandas(frame, preserve_index=False).to_pylist()


def test_dask_partitions_give_the_same(dask, router, routed):
    from uniroute_fast.integrations.dask import route_frame

    frame = dask.dataframe.from_pandas(log().to_pandas(), npartitions=5)
    lazy = route_frame(frame, router)
    assert list(lazy.columns) == ["id", "text", *COLUMNS]
    found = lazy.compute()
    assert records(found) == routed
    # What Dask plans with is what comes, and no other column is touched.
    assert found.dtypes.equals(lazy.dtypes)
    assert found["text"].equals(frame["text"].compute())
    assert found.index.equals(frame.index.compute())
    assert len(lazy[lazy["status"] == "ok"]) == len(routed) - 4


def test_dask_columns_of_objects_may_hold_anything(dask, pool):
    import pandas as pd

    from uniroute_fast.integrations.dask import route_frame

    texts = [DATA.texts[0], 7, None, [DATA.texts[1]], float("nan"), DATA.texts[2]]
    chats = [[{"role": "user", "content": text}] for text in texts[:1]] + [7, None, "a", [3], []]
    with dask.config.set({"dataframe.convert-string": False}):
        frame = dask.dataframe.from_pandas(
            pd.DataFrame({"text": texts, "chat": chats}), npartitions=2, sort=False
        )
        by_text = route_frame(frame, BatchRouter(pool)).compute()
        by_chat = route_frame(frame, BatchRouter(pool, messages_column="chat")).compute()
    assert list(by_text["status"]) == ["ok", "not text", "null", "not text", "null", "ok"]
    assert list(by_chat["status"]) == ["ok", "not text", "null", "not text", "not text", "empty"]
    assert by_text["model"].isna().tolist() == [False, True, True, True, True, False]


def test_dask_workers_load_a_pool_once(dask, pool, tmp_path, monkeypatch):
    from uniroute_fast.integrations import dask as integration

    frame = dask.dataframe.from_pandas(log(60).to_pandas(), npartitions=6)
    path, loads = tmp_path / "pool.uniroute", []
    shutil.copy(pool, path)
    router = BatchRouter(path, 0.05)
    load = uf.Router.load
    monkeypatch.setattr(uf.Router, "load", lambda path: loads.append(path) or load(path))
    # As workers get it: a copy with every task.
    shipped = integration._Shipped.of(router)
    tasks = [pickle.loads(pickle.dumps(shipped)) for _ in range(6)]
    parts = [frame.get_partition(i).compute() for i in range(6)]
    found = [integration._routed(*task) for task in zip(parts, tasks, strict=True)]
    assert len(loads) == 1
    assert [row for part in found for row in records(part)] == router(log(60)).to_pylist()

    # Another pool under the same path is another result, for Dask too.
    before = integration.route_frame(frame, BatchRouter(path, 0.05))
    dear = load(path)
    dear.set_cost(dear.models[0], 1e6)
    dear.save(path)
    after = integration.route_frame(frame, BatchRouter(path, 0.05))
    assert set(before.__dask_keys__()).isdisjoint(after.__dask_keys__())
    assert records(after.compute()) == BatchRouter(path, 0.05)(log(60)).to_pylist()


def test_dask_refuses_before_anything_runs(dask, router):
    from uniroute_fast.integrations.dask import route_frame

    frame = dask.dataframe.from_pandas(log(20).to_pandas(), npartitions=2)
    for bad, said in (
        (frame.drop(columns="text"), "column 'text': not in the input"),
        (frame.assign(text=1), "column 'text': is int64"),
        (frame.assign(cost=1.0), "column 'cost': the input has it already"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=said):
            route_frame(bad, router)


@pytest.fixture(scope="module")
def ray():
    """A real local cluster: two slots for the workers, two for reading."""
    ray = engine("ray", "ray")
    engine("ray.data", "ray")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_actors_give_the_same(workers, ray, pool, routed, tmp_path):
    from uniroute_fast.integrations.ray import route_dataset

    pq.write_table(log(), tmp_path / "log.parquet", row_group_size=250)
    dataset = ray.data.read_parquet(str(tmp_path / "log.parquet")).repartition(8)
    found = route_dataset(dataset, pool, 0.05, workers=workers, batch_rows=200)
    assert sorted(found.take_all(), key=lambda row: row["id"]) == routed


def test_a_ray_worker_that_is_killed_changes_nothing(ray, pool, routed, tmp_path):
    from uniroute_fast.integrations import ray as integration

    pq.write_table(log(), tmp_path / "log.parquet", row_group_size=250)
    once = tmp_path / "killed"

    class Mortal(integration._Worker):
        """Dies at its third batch, once."""

        batches = 0

        def __call__(self, batch):
            self.batches += 1
            if self.batches == 3 and not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    dataset = ray.data.read_parquet(str(tmp_path / "log.parquet")).repartition(8)
    found = dataset.map_batches(
        Mortal,
        fn_constructor_args=(str(pool), 0.05, 1),
        batch_format="pyarrow",
        batch_size=100,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    rows = sorted(found.take_all(), key=lambda row: row["id"])
    assert once.exists()
    assert rows == routed


def test_spark_executors_give_the_same(router, routed, tmp_path, monkeypatch):
    engine("pyspark", "spark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime, and there is none on the path")
    from pyspark.sql import SparkSession

    from uniroute_fast.integrations.spark import route_dataframe

    pq.write_table(log(), tmp_path / "log.parquet")
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "300").getOrCreate()
    try:
        frame = session.read.parquet(str(tmp_path / "log.parquet")).repartition(4)
        rows = [row.asDict() for row in route_dataframe(frame, router).collect()]
    finally:
        session.stop()
    assert sorted(rows, key=lambda row: row["id"]) == routed


@pytest.mark.parametrize("name", ["polars", "duckdb", "dask", "ray", "spark"])
def test_an_engine_that_is_missing_is_named(name, router, monkeypatch):
    module = importlib.import_module(f"uniroute_fast.integrations.{name}")
    modules = "polars duckdb dask dask.dataframe ray ray.data pyspark pyspark.sql.types"
    for engine in modules.split():
        monkeypatch.setitem(sys.modules, engine, None)
    call = {
        "polars": lambda: module.route_frame(None, router),
        "duckdb": lambda: module.register(None, router),
        "dask": lambda: module.route_frame(None, router),
        "ray": lambda: module.route_dataset(None, "pool"),
        "spark": lambda: module.route_dataframe(None, router),
    }[name]
    with pytest.raises(errors.MissingExtraError, match=rf"uniroute_fast\[{name}\]"):
        call()
