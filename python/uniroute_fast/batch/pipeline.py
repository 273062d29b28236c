"""Parts of a log worked on by several threads, results in order.

The calling thread reads while the others route and encode. What they do releases the GIL, so that
reading, routing and writing overlap.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from uniroute_fast import _native
from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.readers import Position, open_log, reading
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

    from uniroute_fast.batch.logs import LogFile
    from uniroute_fast.batch.parts import Part
    from uniroute_fast.batch.progress import Meter
    from uniroute_fast.batch.prompter import Prompter, Prompts

T = TypeVar("T")


def checked_threads(threads: int | None) -> int:
    """Return how many threads work on parts; the package's number where none is given."""
    if threads is None:
        return _native.get_num_threads()
    if threads < 1:
        raise InvalidArgumentError(f"threads: {threads}; expected 1 or more")
    return threads


def ordered(
    parts: Iterable[tuple[Part, Position]], work: Callable[[Part], T], threads: int
) -> Generator[tuple[T, Position]]:
    """Yield the work on each part, in the order of the parts.

    At most ``2 x threads`` parts are in memory. Close the generator to stop early: it then waits
    for the work that has begun.
    """
    # Another thread than made a part frees it, and Arrow's allocator then keeps its memory for the
    # thread that made it. Returned at once, the peak is lower by a sixth and the same in every run.
    release = pyarrow().default_memory_pool().release_unused

    def worked(part: Part) -> T:
        done = work(part)
        release()
        return done

    waiting: deque[tuple[Future[T], Position]] = deque()
    with ThreadPoolExecutor(threads, "uniroute-batch") as pool:
        try:
            for part, at in parts:
                waiting.append((pool.submit(worked, part), at))
                del part  # Not kept alive while the caller has its turn.
                release()
                while waiting and (len(waiting) >= 2 * threads or waiting[0][0].done()):
                    done, at = waiting.popleft()
                    yield done.result(), at
            while waiting:
                done, at = waiting.popleft()
                yield done.result(), at
        finally:
            pool.shutdown(cancel_futures=True)


def scan(
    files: Iterable[LogFile],
    router: Prompter,
    work: Callable[[Part, Prompts], T],
    threads: int,
    meter: Meter,
) -> Iterator[T]:
    """Yield the work on each part of a whole log, which is only read."""
    for file in files:
        reader = open_log(file.fs, file.path, file.form, router)
        parts = reader.parts(Position())
        at = Position()

        def scanned(part: Part, path: str = file.path) -> T:
            with reading(path, "cannot be routed"):
                return work(part, part.prompts(router))

        for done, at in ordered(parts, scanned, threads):
            yield done
            meter.at(file, reader, at)
        meter.end(file, at.rows)
