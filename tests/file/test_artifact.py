"""Files under attack: killed while they are written, damaged, forged."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors

DIM, CLUSTERS, MODELS = 3, 4, 6


def small(seed: int = 0) -> uf.Router:
    rng = np.random.default_rng(seed)
    router = uf.Router(None, [("nearest", rng.normal(size=(CLUSTERS, DIM)).astype(np.float32))])
    names = [f"m{i}" for i in range(MODELS)]
    router.insert(names, rng.random(MODELS), rng.random((CLUSTERS, MODELS), dtype=np.float32))
    router.set_metadata("m1", tags=["tools"], context_length=4096)
    router.disable_model("m2")
    return router


def saved(path: Path, router: uf.Router) -> bytes:
    router.save(path)
    return path.read_bytes()


def decisions(router: uf.Router) -> tuple[list[int], list[float]]:
    x = np.random.default_rng(9).normal(size=(20, DIM)).astype(np.float32)
    routed = router.route_batch(embeddings=x, cost_weight=0.3)
    return routed.index.tolist(), routed.predicted_loss.tolist()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_killed_while_saving_leaves_the_old_file_or_the_new_one_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pool.uniroute"
    script = f"""
import sys
import numpy as np
import uniroute_fast as uf
rng = np.random.default_rng(0)
router = uf.Router(None, [("nearest", rng.normal(size=(64, 8)).astype(np.float32))])
router.insert([f"m{{i}}" for i in range(4000)], rng.random(4000), rng.random((64, 4000)))
print("ready", flush=True)
n = 0
while True:
    router.set_cost("m0", float(n))
    router.save({str(path)!r})
    n += 1
"""
    rng = np.random.default_rng(1)
    latest = -1.0
    killed = 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Anywhere in a cycle of saving, which takes some milliseconds.
        time.sleep(float(rng.random()) * 0.15)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        killed += child.returncode == -signal.SIGKILL
        router = uf.Router.load(path)
        assert len(router.models) == 4000
        assert router.costs[0] == int(router.costs[0])
        latest = max(latest, router.costs[0])
        left_over = [p for p in tmp_path.iterdir() if p != path]
        for p in left_over:
            p.unlink()
    assert killed == 12
    assert latest > 0


def forged(file: bytes, change: object) -> bytes:
    """Return a file with a changed header, its checksum left as it was."""
    length = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8 : 8 + length])
    change(header)  # type: ignore[operator]
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + file[8 + length :]


def test_damaged_files_are_refused_or_route_the_same(tmp_path: Path) -> None:
    router = small()
    whole = saved(tmp_path / "pool.uniroute", router)
    expected = decisions(router)
    rng = np.random.default_rng(2)
    changed = refused = 0
    rounds = int(os.environ.get("UNIROUTE_FUZZ", "3000"))
    for _ in range(rounds):
        file = bytearray(whole)
        kind = rng.integers(5)
        if kind == 0:
            for _ in range(rng.integers(1, 9)):
                file[rng.integers(len(file))] = rng.integers(256)
        elif kind == 1:
            del file[rng.integers(len(file)) :]
        elif kind == 2:
            at = rng.integers(len(file))
            file[at:at] = rng.bytes(rng.integers(1, 40))
        elif kind == 3:
            start, end = sorted(rng.integers(len(file), size=2))
            del file[start:end]
        else:
            a, b, n = *rng.integers(len(file), size=2), rng.integers(1, 64)
            file[a : a + n] = file[b : b + n]
        # Zeros over zeros: the profiles of a small pool are mostly room for more models.
        if file == whole:
            continue
        changed += 1
        try:
            loaded = uf._native.Loaded.from_bytes(bytes(file))
        except errors.ArtifactError:
            refused += 1
            continue
        assert decisions(uf.Router(None, loaded)) == expected
    assert changed > 0.8 * rounds
    assert refused > 0.9 * changed


def test_headers_that_lie_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "pool.uniroute", small())

    def set_offsets(header: dict) -> None:
        header["profiles"]["data_offsets"] = [0, 2**62]

    def set_shape(header: dict) -> None:
        header["profiles"]["shape"] = [2**40, 2**40]

    def drop_tensor(header: dict) -> None:
        header.pop("costs")

    def edit_manifest(header: dict) -> None:
        own = json.loads(header["__metadata__"]["uniroute"])
        own["manifest"]["disabled"] = []
        header["__metadata__"]["uniroute"] = json.dumps(own)

    for change in (set_offsets, set_shape, drop_tensor, edit_manifest):
        with pytest.raises(errors.ArtifactError, match="artifact"):
            uf._native.Loaded.from_bytes(forged(whole, change))
    for length in (0, 2**63, 2**64 - 1, len(whole)):
        with pytest.raises(errors.ArtifactError):
            uf._native.Loaded.from_bytes(struct.pack("<Q", length) + whole[8:])


@pytest.mark.parametrize("number", [0, 2, 5, -1, 1.5, "1", None])
def test_a_file_of_another_format_is_refused_by_both_numbers(
    tmp_path: Path, number: object
) -> None:
    def set_format(header: dict) -> None:
        own = json.loads(header["__metadata__"]["uniroute"])
        own["format"] = number
        header["__metadata__"]["uniroute"] = json.dumps(own)

    path = tmp_path / "pool.uniroute"
    path.write_bytes(forged(saved(path, small()), set_format))
    problem = re.escape(f"its format is {json.dumps(number)}; expected format 1")
    with pytest.raises(errors.ArtifactError, match=f"pool.uniroute: {problem}"):
        uf.Router.load(path)


def test_the_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "one", small()), saved(tmp_path / "two", small())
    assert one == two
    again = uf.Router.load(tmp_path / "one")
    assert saved(tmp_path / "three", again) == one
    assert saved(tmp_path / "four", small(seed=5)) != one


def test_a_saved_file_may_be_read_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("this system has no umask")
    path = tmp_path / "pool.uniroute"
    before = os.umask(0o027)
    try:
        small().save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")
def test_saving_over_a_file_keeps_its_permissions_and_links(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "a.uniroute", tmp_path / "link.uniroute", tmp_path / "pipe"
    saved(file, small(0))
    file.chmod(0o600)
    link.symlink_to(file)
    new = saved(link, small(1))
    assert link.is_symlink()
    assert file.read_bytes() == new
    assert file.stat().st_mode & 0o777 == 0o600
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe: is there and no regular file"):
        small(0).save(pipe)
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.uniroute", "link.uniroute", "pipe"]


def test_fingerprints_tell_which_part_differs(tmp_path: Path) -> None:
    router, again = small(), small()
    before = router.fingerprint()
    assert before == again.fingerprint()
    assert before["embedder"] is None
    router.save(tmp_path / "pool.uniroute")
    assert uf.Router.load(tmp_path / "pool.uniroute").fingerprint() == before
    for change in (
        lambda: again.set_cost("m1", 5.0),
        lambda: again.enable_model("m2"),
        lambda: again.set_metadata("m1", latency=1.0),
        lambda: again.set_usage(["m1"], np.ones((CLUSTERS, 1)), [1.0], [0.0]),
    ):
        last = again.fingerprint()
        change()
        assert again.fingerprint()["pool"] != last["pool"]
        assert again.fingerprint()["cluster_map"] == last["cluster_map"]
    assert small(seed=1).fingerprint()["cluster_map"] != before["cluster_map"]
    texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    one, two = (uf.Router.fit(texts[skip:], n_clusters=2) for skip in (0, 3))
    assert one.fingerprint()["embedder"] != two.fingerprint()["embedder"]
    assert one.fingerprint() == uf.Router.fit(texts, n_clusters=2).fingerprint()


def sparse(path: Path, tensors: dict[str, tuple[str, list[int]]], manifest: object) -> None:
    """Write a file whose tensors are one hole, their sizes as they ask for."""
    widths = {"U8": 1, "F32": 4, "F64": 8}
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in sorted(tensors.items()):
        start, end = end, end + widths[dtype] * int(np.prod(shape, dtype=object))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    own = {"checksum": "0", "format": 1, "manifest": manifest}
    header["__metadata__"] = {"uniroute": json.dumps(own)}
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(8 + len(encoded) + end)


NOBODY: dict[str, object] = {"models": [], "metadata": {}, "disabled": []}
NOBODY |= {"heads": [{"kind": "nearest"}], "familiarity": None, "window": None}
NOBODY |= {"embedder": None, "extra": None}
EMPTY_POOL = {"costs": ("F64", [0]), "profiles": ("F32", [0, 4, 256])}
HEAD = {"head.0.centroids": ("F32", [4, 3])}

HOLES = {
    "a manifest of nothing": ({"extra.x": ("U8", [1 << 40])}, {}, "at most"),
    "an extra": (EMPTY_POOL | HEAD | {"extra.x": ("U8", [1 << 40])}, NOBODY, "at most"),
    "an extra that memory has no room for": (
        EMPTY_POOL | HEAD | {"extra.x": ("U8", [(1 << 31) - 4096])},
        NOBODY,
        "takes [0-9]* bytes of memory",
    ),
    "a head of many clusters": (
        {"costs": ("F64", [0]), "profiles": ("F32", [0, 1 << 28, 256])}
        | {"head.0.centroids": ("F32", [1 << 28, 1])},
        NOBODY,
        "heads: 268435456 clusters; expected at most 131072",
    ),
    "profiles of no model": (
        HEAD | {"costs": ("F64", [0]), "profiles": ("F32", [1 << 18, 4, 256])},
        NOBODY,
        "profiles",
    ),
    "costs of no model": (HEAD | EMPTY_POOL | {"costs": ("F64", [1 << 27])}, NOBODY, "costs"),
    "a tensor of no use": (
        HEAD | EMPTY_POOL | {"usage.input": ("F64", [1 << 27])},
        NOBODY,
        "usage",
    ),
    "an embedder's table": (
        HEAD | EMPTY_POOL | {"embedder.table": ("U8", [1 << 29, 3])},
        NOBODY | {"embedder": {}},
        "tags: 536870912 rows",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("hole", HOLES)
def test_a_file_with_a_hole_takes_no_memory_for_what_it_claims(tmp_path: Path, hole: str) -> None:
    tensors, manifest, problem = HOLES[hole]
    path = tmp_path / "pool.uniroute"
    sparse(path, tensors, manifest)
    # Room for what is loaded already, and half a GiB more.
    script = f"""
import resource, sys
import uniroute_fast as uf
from uniroute_fast import errors
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
try:
    uf.Router.load({str(path)!r})
except errors.ArtifactError as error:
    print(error)
"""
    child = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(child, capture_output=True, text=True, timeout=60, check=True)
    assert re.search(problem, done.stdout), done.stdout
    assert len(done.stdout) < 2048


def test_the_largest_file_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pool.uniroute"
    whole = saved(path, small())
    for set_to, problem in ((str(len(whole) - 1), f"{len(whole)} bytes"), ("many", "many")):
        monkeypatch.setenv("UNIROUTE_MAX_FILE_BYTES", set_to)
        with pytest.raises(errors.ArtifactError, match=problem):
            uf.Router.load(path)
        with pytest.raises(errors.ArtifactError, match=problem):
            small(1).save(path)
        assert path.read_bytes() == whole
    monkeypatch.setenv("UNIROUTE_MAX_FILE_BYTES", str(len(whole)))
    assert uf.Router.load(path).models == small().models


@pytest.mark.skipif(os.name != "posix", reason="pipes, devices and links are POSIX's")
@pytest.mark.parametrize("kind", ["empty", "folder", "pipe", "device", "loop", "missing"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pool"
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises((errors.ArtifactError, errors.ArtifactIOError), match=path.name):
        uf.Router.load(path)


def test_names_by_which_a_chat_asks_to_be_routed_are_no_models() -> None:
    router = small()
    for name in ("uniroute", "uniroute:", "uniroute:cheap"):
        with pytest.raises(errors.InvalidArgumentError, match="asks to be routed"):
            router.insert([name], [1.0], np.zeros((CLUSTERS, 1), np.float32))
    for change in (
        lambda: router.insert(["x" * 513], [1.0], np.zeros((CLUSTERS, 1), np.float32)),
        lambda: router.set_metadata("m0", tags=["x" * 257]),
        lambda: router.set_metadata("m0", tags=[str(i) for i in range(1025)]),
    ):
        with pytest.raises(errors.InvalidArgumentError, match="at most") as refused:
            change()
        assert len(str(refused.value)) < 200
    assert router.models == small().models


def test_a_cost_weight_of_minus_zero_is_zero() -> None:
    router = small()
    x = np.random.default_rng(3).normal(size=(20, DIM)).astype(np.float32)
    plain, minus = (router.route_batch(embeddings=x, cost_weight=w) for w in (0.0, -0.0))
    assert minus.index.tolist() == plain.index.tolist()
    for one in x[:5]:
        assert str(router.route(embeddings=one, cost_weight=-0.0).cost_weight) == "0.0"
        explained = [router.explain(embeddings=one, cost_weight=w) for w in (0.0, -0.0)]
        assert str(explained[0]) == str(explained[1])
        assert explained[0].flip_up == explained[1].flip_up
