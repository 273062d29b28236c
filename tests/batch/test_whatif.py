"""The simulated cluster does what arithmetic says, where arithmetic can say it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "bench"))
pytest.importorskip("pyarrow", reason="the measured log is one of pyarrow's (extra batch)")
from simulate_cluster import Cluster, Job, Measured

#: 1,000 rows a second, 0.5 s a file, 2 s to start; so fast a network that it never counts.
STEADY = Measured(
    start=2.0, file=0.5, parts=np.full(4, 0.1), part_rows=100, row_bytes=1000, pool_bytes=0
)
FILES = [1000.0] * 24


def wall(cluster: Cluster, files: list[float] = FILES, measured: Measured = STEADY) -> float:
    return Job(measured, cluster, files).run().wall


@pytest.mark.parametrize("workers", [1, 2, 8, 24, 100])
def test_workers_share_files(workers):
    turns = -(-len(FILES) // workers)
    assert wall(Cluster(workers)) == pytest.approx(2.0 + turns * 1.5)


def test_a_network_or_a_storage_that_is_too_slow_is_what_counts():
    # A file is 1 MB and 1.5 s of work: at 0.1 MB/s it takes 10 s.
    assert wall(Cluster(1, network=1e5)) == pytest.approx(2.0 + 24 * 10)
    # 24 MB through 1 MB/s, whoever shares it.
    for workers in (4, 24, 100):
        assert wall(Cluster(workers, storage=1e6)) == pytest.approx(26, abs=0.01)
    # Half of what all would like, and no more than what one can.
    assert wall(Cluster(2, network=1e6, storage=1.5e6)) == pytest.approx(2.0 + 12 * 1.5)
    assert wall(Cluster(2, network=1e6, storage=4e5)) == pytest.approx(2.0 + 24e6 / 4e5)


def test_transfers_that_begin_at_different_times_share_what_there_is():
    # 1 MB and 3 MB at 1 MB/s: together until 2 s, then 2 MB alone.
    still = replace(STEADY, start=0.0, file=0.0, parts=np.full(4, 1e-9))
    assert wall(Cluster(2, storage=1e6), [1000.0, 3000.0], still) == pytest.approx(4.0)


def test_slow_workers_do_less():
    fast, slow = wall(Cluster(4)), wall(Cluster(4, slow_share=1.0, slow_factor=3.0))
    assert slow == pytest.approx(3 * fast)
    some = wall(Cluster(4, slow_share=0.5, slow_factor=3.0))
    assert fast < some < slow


def test_deaths_cost_what_they_undo_and_no_file():
    mortal = Cluster(4, lifetime=20.0, restart=1.0)
    files = FILES * 20
    job = Job(STEADY, mortal, files)
    found = job.run()
    assert job.left == 0
    assert not job.queue
    assert found.deaths > 20
    # Files take 1.5 s: a death costs half of that, or a start, on average.
    assert 0.2 * found.deaths < found.lost < 1.5 * found.deaths
    assert found.wall > wall(Cluster(4), files)
    lost_and_down = found.lost + found.deaths * (1.0 + 2.0)
    assert found.wall <= wall(Cluster(4), files) + lost_and_down / 4 + 3 * 1.5
    assert Job(STEADY, mortal, files).run() == found


def test_the_sum_of_many_parts_is_drawn_like_that_of_few():
    rng = np.random.default_rng(0)
    uneven = replace(STEADY, start=0.0, file=0.0, parts=rng.exponential(0.1, 1000))
    # 200 parts are drawn one by one, 300 as a sum.
    for rows in (20_000.0, 30_000.0):
        walls = [Job(uneven, Cluster(1), [rows], seed).run().wall for seed in range(200)]
        expected = rows / 100 * uneven.parts.mean()
        spread = np.sqrt(rows / 100) * uneven.parts.std()
        assert np.mean(walls) == pytest.approx(expected, abs=4 * spread / np.sqrt(200))
        assert np.std(walls) == pytest.approx(spread, rel=0.2)
