"""Engines give what one process gives."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast.batch import COLUMNS, BatchRouter
from uniroute_fast.cli.made_up import make_dataset

DATA = make_dataset(400, 5)


def engine(name: str, extra: str):
    """Import an engine; skip where it is not installed, unless `UNIROUTE_ENGINES` names it."""
    if extra in os.environ.get("UNIROUTE_ENGINES", "").split(","):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed (extra {extra})")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    router = uf.Router.fit(list(DATA.texts), n_clusters=8)
    router.add_models(DATA.models, DATA.costs, list(DATA.texts), DATA.losses)
    path = tmp_path_factory.mktemp("pool") / "pool.uniroute"
    router.save(path)
    return path


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
    dataset = ray.data.read_parquet(str(tmp_path / "log.parquet"), override_num_blocks=8)
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

    dataset = ray.data.read_parquet(str(tmp_path / "log.parquet"), override_num_blocks=8)
    found = dataset.map_batches(
        Mortal,
        fn_constructor_args=(str(pool), 0.05, 1),
        batch_format="pyarrow",
        batch_size=100,
        concurrency=2,
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


@pytest.mark.parametrize("name", ["polars", "duckdb", "ray", "spark"])
def test_an_engine_that_is_missing_is_named(name, router, monkeypatch):
    module = importlib.import_module(f"uniroute_fast.integrations.{name}")
    for engine in ("polars", "duckdb", "ray", "ray.data", "pyspark", "pyspark.sql.types"):
        monkeypatch.setitem(sys.modules, engine, None)
    call = {
        "polars": lambda: module.route_frame(None, router),
        "duckdb": lambda: module.register(None, router),
        "ray": lambda: module.route_dataset(None, "pool"),
        "spark": lambda: module.route_dataframe(None, router),
    }[name]
    with pytest.raises(errors.MissingExtraError, match=rf"uniroute_fast\[{name}\]"):
        call()
