"""TensorFlow's checkpoints, read with NumPy alone: a table of names (.index) and the bytes of all tensors (.data).

Sources: LevelDB's table format (an .index is one such table, uncompressed) and TensorFlow's tensor_bundle.proto.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
FLOAT32 = 1  # of TensorFlow's DataType


def read_bundle(index: Path, data: Path) -> dict[str, np.ndarray]:
    """Return the float32 tensors by name of a checkpoint of one shard; tensors of other types are left out.

    Errors: `ValueError` where the index is no such table, or the data are cut short.
    """
    try:
        entries = dict(_read_table(index.read_bytes()))
        records = {name.decode(): _fields(value) for name, value in entries.items() if name}
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{index}: damaged index of a TensorFlow checkpoint ({error})") from error
    if b"" not in entries:
        raise ValueError(f"{index}: a table, but no index of a TensorFlow checkpoint")
    stored = data.read_bytes()
    tensors = {}
    for name, fields in records.items():
        if fields.get(1, [0])[0] != FLOAT32:
            continue
        shape = tuple(_fields(dim).get(1, [0])[0] for part in fields.get(2, []) for dim in _fields(part).get(2, []))
        offset, size = fields.get(4, [0])[0], fields.get(5, [0])[0]
        if size != 4 * math.prod(shape) or offset + size > len(stored):
            raise ValueError(f"{data}: {name} {shape} does not fit its {size} bytes at {offset}; the file is cut short")
        tensors[name] = np.frombuffer(stored, "<f4", math.prod(shape), offset).reshape(shape)
    return tensors


def _read_table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = table[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise IndexError("its last bytes are not a table's")
    _, _, position = _handle(footer, 0)  # of a block of facts that TensorFlow leaves empty
    offset, size, _ = _handle(footer, position)
    for _, value in _read_block(table, offset, size):
        offset, size, _ = _handle(value, 0)
        yield from _read_block(table, offset, size)


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _read_block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if table[offset + size] != 0:  # the byte after a block names its compression
        raise IndexError("a compressed table; TensorFlow writes it uncompressed")
    block = table[offset : offset + size]
    num_restarts = struct.unpack("<I", block[-4:])[0]
    end, position, key = size - 4 * (num_restarts + 1), 0, b""
    while position < end:
        num_shared, position = _varint(block, position)
        num_own, position = _varint(block, position)
        num_value, position = _varint(block, position)
        key = key[:num_shared] + block[position : position + num_own]
        position += num_own
        yield key, block[position : position + num_value]
        position += num_value


def _fields(message: bytes) -> dict[int, list]:
    """Return the values of a protocol buffer's fields by number: integers, or the bytes of what is nested."""
    found: dict[int, list] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(message, position)
        elif wire == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            value, position = message[position : position + length], position + length
        else:
            raise IndexError(f"wire type {wire}")
        found.setdefault(number, []).append(value)
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
