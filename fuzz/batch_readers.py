"""Route damaged logs: each gives rows, or an error of the package that names the file.

    python fuzz/batch_readers.py --seconds 600
    python fuzz/batch_readers.py --read FILE ...

Valid logs of every format are damaged, byte by byte and where their formats have lengths, offsets
and quotes, and routed by a process of their own: it may end in no other way, may not need more than
MOST_MEMORY nor more than MOST_SECONDS for one. What does is kept in --keep. An input is made from
the seed and its number alone. Exits with 1 where something was found.
"""

from __future__ import annotations

import argparse
import bz2
import faulthandler
import gzip
import io
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import uniroute_fast as uf
from uniroute_fast.batch import route_log

MOST_MEMORY, MOST_SECONDS = 3 << 30, 20
#: Inputs that one process reads: what leaks shows, and a crash costs little.
AT_ONCE = 2000

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TEXTS = [f"{what} {n}" for what in ("add", "river", "poem", "rust") for n in range(25)]
NUMBERS = (
    0,
    1,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 24,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
)

Log = tuple[str, bytes]


def valid_logs() -> list[Log]:
    """Return small logs of every format: a name, whose suffix says which, and the bytes."""
    rows = 60
    table = pa.table(
        {
            "text": [None, *TEXTS[: rows - 2], "caf\u00e9 " * 40],
            "id": np.arange(rows),
            "chat": pa.array(
                [[{"role": "user", "content": t}] * 2 for t in TEXTS[:rows]], MESSAGES
            ),
            "tags": pa.array([[str(i)] * (i % 3) for i in range(rows)]),
        }
    )
    encoded = table.set_column(0, "text", table["text"].combine_chunks().dictionary_encode())
    logs = []
    for options in (
        {},
        {"compression": "zstd", "row_group_size": 20},
        {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "gzip", "data_page_size": 200, "write_page_index": True},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ):
        out = io.BytesIO()
        pq.write_table(table, out, **options)
        logs.append(("log.parquet", out.getvalue()))
    runs = pa.RunEndEncodedArray.from_arrays([rows // 2, rows], ["a", "b"])
    views = table["text"].cast(pa.string_view())
    arrow = (
        table,
        encoded,
        table.append_column("runs", runs),
        table.set_column(0, "text", views),
        table.append_column("large", table["text"].cast(pa.large_string())),
    )
    for content in arrow:
        for maker in (pa.ipc.new_file, pa.ipc.new_stream):
            for compression in (None, "lz4", "zstd"):
                out = io.BytesIO()
                how = pa.ipc.IpcWriteOptions(compression=compression)
                with maker(out, content.schema, options=how) as file:
                    file.write_table(content, max_chunksize=25)
                logs.append(("log.arrow", out.getvalue()))
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    cells = b"id,text\n" + b"".join(b'%d,"%s"\n' % (i, t.encode()) for i, t in enumerate(TEXTS))
    plain = [("log.jsonl", lines), ("log.csv", cells), ("log.txt", "\n".join(TEXTS).encode())]
    return logs + plain + [packed(*log, suffix) for log in plain for suffix in PACKERS]


PACKERS = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


def packed(name: str, data: bytes, suffix: str) -> Log:
    """Return a log, compressed."""
    return name + suffix, PACKERS[suffix](data)


def damaged(logs: list[Log], seed: int, number: int) -> Log:
    """Return an input: a valid log with some damage, which may lie within its compression."""
    rng = random.Random(f"{seed} {number}")
    name, data = rng.choice(logs)
    changed = bytearray(data)
    others = [other for kind, other in logs if kind == name]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(DAMAGES)(changed, rng, rng.choice(others))
    log = name, bytes(changed)
    if name in ("log.jsonl", "log.csv", "log.txt") and rng.random() < 0.3:
        log = packed(*log, rng.choice(list(PACKERS)))
    return log


def _at(data: bytearray, rng: random.Random) -> int:
    # Footers and headers are at the ends.
    end = len(data)
    near = rng.choice((end, 64, 400))
    at = rng.randrange(max(1, min(end, near)))
    return at if rng.random() < 0.5 else max(0, end - 1 - at)


def _flip(data: bytearray, rng: random.Random, _: bytes) -> None:
    if data:
        data[_at(data, rng)] ^= 1 << rng.randrange(8)


def _number(data: bytearray, rng: random.Random, _: bytes) -> None:
    at, number = _at(data, rng), rng.choice(NUMBERS)
    if rng.random() < 0.2:
        number = -number
    size = rng.choice((1, 2, 4, 8))
    number &= (1 << 8 * size) - 1
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "little", "big")))


def _varint(data: bytearray, rng: random.Random, _: bytes) -> None:
    at, number = _at(data, rng), rng.choice(NUMBERS)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    data[at : at + rng.choice((1, len(out) + 1))] = out + bytes([number])


def _cut(data: bytearray, rng: random.Random, _: bytes) -> None:
    at = _at(data, rng)
    del data[at : at + rng.choice((1, 4, 8, 100, len(data)))]


def _repeat(data: bytearray, rng: random.Random, _: bytes) -> None:
    at = _at(data, rng)
    data[at:at] = data[at : at + rng.choice((1, 4, 16, 64))] * rng.choice((1, 2, 50))


def _splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    at, end = _at(data, rng), _at(bytearray(other), rng)
    data[at:] = other[end:]


def _length(data: bytearray, rng: random.Random, _: bytes) -> None:
    """Change a length that is one: four bytes that are small already."""
    for _ in range(50):
        at = _at(data, rng) & ~3
        if len(data) - at >= 4 and 0 < struct.unpack_from("<i", data, at)[0] < 1 << 16:
            struct.pack_into("<I", data, at, rng.choice(NUMBERS) & 0xFFFFFFFF)
            return


def _token(data: bytearray, rng: random.Random, _: bytes) -> None:
    tokens = (
        b'"', b"\n", b"\r", b"\0", b",", b"-", b"1e999", b"\xff\xfe", b"\xef\xbb\xbf",
        b"\xed\xa0\x80", b"\\ud800", b"\x1b[31m", b'{"text": ', b'"text": "', b'"chat": [7], ',
        b"[" * 2000, b"{" * 500, b'{"a":' * 3000, b"1" * 5000, b"," * 3000, b"ARROW1", b"PAR1",
    )  # fmt: skip
    at = _at(data, rng)
    data[at:at] = rng.choice(tokens)


DAMAGES = (_flip, _flip, _number, _number, _varint, _cut, _repeat, _splice, _length, _token)


def make_pool() -> uf.Router:
    """Return a small router."""
    router = uf.Router.fit(TEXTS, n_clusters=4)
    rng = np.random.default_rng(0)
    router.insert(["small", "large"], [1.0, 9.0], rng.random((router.n_clusters, 2)))
    return router


def route(pool: uf.Router, name: str, data: bytes, messages: bool, as_parquet: bool) -> str:
    """Route one input; return the status of the job. What no job may end in is raised."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, name)
        log.write_bytes(data)
        lines = name.startswith(("log.jsonl", "log.csv"))
        form = "parquet" if as_parquet and not lines else name.split(".")[1]
        form = "jsonl" if form == "txt" or (form == "arrow" and not as_parquet) else form
        column = {"messages_column": "chat"} if messages else {}
        try:
            totals = route_log(pool, log, f"{folder}/out.{form}", threads=1, **column).totals
        except uf.errors.UniRouteError:
            return "refused"
        return "some rows" if totals.routed else "no rows"


def work(numbers: range, seed: int) -> None:
    """Route inputs, one after the other; say which one is begun, and how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (2 * MOST_MEMORY, 2 * MOST_MEMORY))
    pool, logs = make_pool(), valid_logs()
    for number in numbers:
        print(number, end=" ", flush=True)
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        name, data = damaged(logs, seed, number)
        messages = number % 4 == 0 and name.startswith(("log.parquet", "log.arrow", "log.jsonl"))
        print(route(pool, name, data, messages, number % 2 == 0), flush=True)
        faulthandler.cancel_dump_traceback_later()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        assert peak < MOST_MEMORY, f"{peak:,} bytes of memory"


def fuzz(seconds: float, cases: int, seed: int, keep: Path) -> int:
    """Have inputs routed until time or cases are over; return how many were not as they should."""
    end, number, found = time.monotonic() + seconds, 0, 0
    ended: dict[str, int] = {}
    while number < cases and time.monotonic() < end:
        last = min(cases, number + AT_ONCE)
        command = [sys.executable, __file__, "--work", str(number), str(last), "--seed", str(seed)]
        with tempfile.TemporaryFile("w+") as said:
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
            assert worker.stdout is not None
            begun = None
            for line in worker.stdout:
                begun, _, how = line.strip().partition(" ")
                ended[how] = ended.get(how, 0) + 1
                number = int(begun) + 1
                if time.monotonic() > end:
                    worker.kill()
            status = worker.wait()
            said.seek(0)
            why = said.read()
        if status and time.monotonic() < end:
            found += 1
            if begun is None or status == 2:
                sys.exit(f"the worker cannot begin: {why}")
            name, data = damaged(valid_logs(), seed, number - 1)
            keep.mkdir(parents=True, exist_ok=True)
            at = keep / f"{seed}-{number - 1}.{name.removeprefix('log.')}"
            at.write_bytes(data)
            print(f"{at}: status {status}: {why[-1500:]}", flush=True)
    print(f"{number:,} inputs of seed {seed}: {ended}; {found} found")
    return found


def read(files: list[Path]) -> None:
    """Route files, in every way that the fuzzing does."""
    resource.setrlimit(resource.RLIMIT_AS, (2 * MOST_MEMORY, 2 * MOST_MEMORY))
    pool = make_pool()
    for file in files:
        name = "log." + file.name.partition(".")[2]
        for messages in (False, True) if name.startswith(("log.p", "log.a", "log.j")) else (False,):
            for as_parquet in (False, True):
                faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
                print(file, route(pool, name, file.read_bytes(), messages, as_parquet), flush=True)
                faulthandler.cancel_dump_traceback_later()


def main() -> None:
    """Fuzz, or do the work of one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=1 << 40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("found"))
    parser.add_argument("--read", type=Path, nargs="+", help="route these and nothing else")
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read([file.resolve() for file in arguments.read])
    elif arguments.work:
        work(range(*arguments.work), arguments.seed)
    elif fuzz(arguments.seconds, arguments.cases, arguments.seed, arguments.keep):
        sys.exit(1)


if __name__ == "__main__":
    main()
