"""Stored routers taken apart, and put together again with a checksum that fits: forged files."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {
    "F32": np.float32,
    "F64": np.float64,
    "I64": np.int64,
    "I32": np.int32,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "I8": np.int8,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def taken_apart(file: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return manifest and tensors of a file's bytes."""
    length = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["uniroute"])["manifest"]
    data = file[8 + length :]
    tensors = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        values = np.frombuffer(data[start:end], DTYPES[info["dtype"]])
        tensors[name] = values.reshape(info["shape"])
    return manifest, tensors


def put_together(manifest: Any, tensors: dict[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a file that holds these; a str is taken as the manifest's JSON."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    digest = xxhash.xxh3_64(text.encode())
    header: dict[str, Any] = {}
    data = b""
    for name in sorted(tensors):
        array = tensors[name]
        dtype, shape = NAMES[array.dtype], list(array.shape)
        values = array.tobytes()
        digest.update(f'"{name}"{dtype}{shape}'.encode() + values)
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += values
    own = f'{{"checksum": "{digest.hexdigest()}", "format": 1, "manifest": {text}}}'
    header["__metadata__"] = {"uniroute": own}
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data
