"""Which column of a log holds the prompts, and how a router is given them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.scalars import as_string
from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.messages import text_of, texts_of
from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uniroute_fast.router import Router


#: A text that tells embedders apart.
PROBE = "How many prime numbers are there below 100?"


@dataclass
class Prompts:
    """Texts, and the status of rows that hold none: their text is null."""

    texts: Any
    statuses: dict[int, str] = field(default_factory=dict)


class Prompter:
    """A router, and where in a log its prompts are.

    Picklable: it carries the path of the pool, or the router itself, and loads the pool once in
    each process that uses it.

    Parameters
    ----------
    pool : Router or path
    text_column : str
        Holds the prompts: strings, or bytes of UTF-8.
    messages_column : str, optional
        In place of ``text_column``: lists of chat messages, structs of ``role`` and ``content``;
        `uniroute_fast.chat_text` says what of them is routed.
    """

    def __init__(
        self,
        pool: Router | str | os.PathLike[str],
        *,
        text_column: str = "text",
        messages_column: str | None = None,
    ) -> None:
        if not isinstance(pool, (_native.Router, str, os.PathLike)):
            raise ArgumentTypeError(
                f"pool: a {type(pool).__name__}; expected a Router, or the path of one"
            )
        self.pool = pool
        self.text_column = as_string("text_column", text_column)
        self.messages_column = messages_column
        if messages_column is not None:
            as_string("messages_column", messages_column)
        self._router: Router | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a process loads for itself."""
        return self.__dict__ | {"_router": None}

    @property
    def router(self) -> Router:
        """The router, loaded when first asked for."""
        return self._router or self.load()

    def load(self) -> Router:
        """Load the router.

        Raises
        ------
        ArtifactError, ArtifactIOError
        InvalidArgumentError
            It has no LLM.
        """
        from uniroute_fast.router import Router

        router = self.pool if isinstance(self.pool, Router) else Router.load(self.pool)
        if not router.models:
            raise InvalidArgumentError("pool: has no LLM yet; expected one or more")
        self._router = router
        return router

    def digest(self) -> str:
        """Return what identifies the pool: all that its decisions come from, in hexadecimal."""
        if not isinstance(self.pool, _native.Router):
            return hashlib.sha256(Path(os.fspath(self.pool)).read_bytes()).hexdigest()
        digest = hashlib.sha256(self.pool.write_bytes("null", {}))
        embedder = self.pool.embedder
        if embedder is not None and not isinstance(embedder, LexicalEmbedder):
            # Not in the pool: told by what it makes of a text, but for rounding.
            digest.update(np.asarray(embedder.embed([PROBE]), np.float16).tobytes())
        return digest.hexdigest()

    @property
    def names(self) -> list[str]:
        """Names of columns that the log may not have."""
        return []

    def check_schema(self, schema: Any) -> None:
        """Refuse a schema without the prompts' column, or that already has an added one.

        Raises
        ------
        InvalidArgumentError
        """
        self._text_type(schema)
        taken = [name for name in self.names if name in schema.names]
        if taken:
            raise InvalidArgumentError(
                f"column {taken[0]!r}: the input has it already; expected another name: "
                "give a prefix for the added columns"
            )

    def prompts(self, batch: Any) -> Prompts:
        """Return the prompts of a table or record batch."""
        self._text_type(batch.schema)
        if self.messages_column is not None:
            return Prompts(*texts_of(batch.column(self.messages_column)))
        return Prompts(_as_strings(batch.column(self.text_column)))

    def prompt_of(self, value: Any) -> tuple[str | None, str | None]:
        """Return the prompt of one Python object, or None and the status that says why not."""
        if self.messages_column is not None:
            return text_of(value)
        return (value, None) if value is None or isinstance(value, str) else (None, "not text")

    def prompts_of(self, values: Iterable[Any]) -> Prompts:
        """Return the prompts of Python objects, which may be of any type."""
        prompts = Prompts([])
        for row, value in enumerate(values):
            text, status = self.prompt_of(value)
            prompts.texts.append(text)
            if status:
                prompts.statuses[row] = status
        return prompts

    def inputs(self, texts: Any) -> tuple[dict[str, Any], dict[int, str]]:
        """Return what the router is called with, and the status of rows that it cannot tell.

        An embedder that is not this package's own takes a list of str and knows no nulls.
        """
        embedder = self.router.embedder
        if embedder is None:
            raise InvalidArgumentError(
                "pool: was fitted with an embedder of its own; expected that embedder too"
            )
        if isinstance(embedder, LexicalEmbedder):
            return {"texts": texts}, {}
        listed = texts if isinstance(texts, list) else texts.to_pylist()
        failures = {
            row: "null" if text is None else "empty" if not text else "blank"
            for row, text in enumerate(listed)
            if text is None or not text.strip()
        }
        embeddings = embedder.embed([text or "" for text in listed])
        inputs = {"embeddings": np.asarray(embeddings, np.float32)}
        if self.router.metered.any():
            # As the router estimates it where it sees the text.
            lengths = [-(-len((text or "").encode(errors="replace")) // 4) for text in listed]
            inputs["tokens"] = np.array(lengths, np.uint64)
        return inputs, failures

    def _text_type(self, schema: Any) -> None:
        pa = pyarrow()
        name = self.messages_column or self.text_column
        if name not in schema.names:
            raise InvalidArgumentError(
                f"column {name!r}: not in the input, which has {schema.names[:8]}"
            )
        if schema.names.count(name) > 1:
            raise InvalidArgumentError(f"column {name!r}: the input has it twice; expected it once")
        kind = schema.field(name).type
        if self.messages_column is not None:
            right = pa.types.is_list(kind) or pa.types.is_large_list(kind)
            right = pa.types.is_null(kind) or (right and pa.types.is_struct(kind.value_type))
            expected = "a list of structs of role and content"
        else:
            value = kind.value_type if pa.types.is_dictionary(kind) else kind
            right = any(
                test(value)
                for test in (
                    pa.types.is_string,
                    pa.types.is_large_string,
                    pa.types.is_string_view,
                    pa.types.is_binary,
                    pa.types.is_large_binary,
                    pa.types.is_null,
                )
            )
            expected = "strings"
        if not right:
            raise InvalidArgumentError(f"column {name!r}: is {kind}; expected {expected}")


def _as_strings(column: Any) -> Any:
    """Return a column as strings; bytes are taken for UTF-8, which the router checks."""
    pa = pyarrow()
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    strings = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string()}.get(kind)
    if strings is None:
        return column
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array(
        [
            pa.Array.from_buffers(strings, len(c), c.buffers(), c.null_count, c.offset)
            for c in chunks
        ],
        strings,
    )
