"""A block as the core makes it, from Python lists: Arrow buffers with the least significant bit first."""

from __future__ import annotations

import struct
from itertools import accumulate

from synfin.schema import ENUMS, TABLES

WIDTH = {"int16": "h", "int32": "i", "int64": "q", "instant": "q", "text": "i"}


def bitmap(bits):
    packed = bytearray(-(-len(bits) // 8))
    for k, bit in enumerate(bits):
        packed[k >> 3] |= bool(bit) << (k & 7)
    return bytes(packed)


class FakeBlock:
    """Rows of a table: `columns` maps a name to its values (None is null; the kind's zero lies in the buffer)."""

    def __init__(self, table, columns):
        self.kinds = {column.name: column.kind for column in TABLES[table]}
        self.columns = columns
        self.names = list(columns)
        self.rows = len(next(iter(columns.values())))

    def words(self, name):
        return sorted({value for value in self.columns[name] if value is not None})

    def buffers(self, name):
        kind, values = self.kinds[name], self.columns[name]
        validity = bitmap([value is not None for value in values]) if None in values else None
        if kind == "bool":
            return validity, bitmap(values)
        if kind.startswith("enum:"):
            words = ENUMS[kind[5:]]
            return validity, bytes(0 if value is None else words.index(value) for value in values)
        if kind == "text":
            codes = {word: code for code, word in enumerate(self.words(name))}
            values = [codes.get(value) for value in values]
        return validity, struct.pack(f"<{len(values)}{WIDTH[kind]}", *(value or 0 for value in values))

    def dictionary(self, name):
        words = [word.encode() for word in self.words(name)]
        ends = list(accumulate(map(len, words), initial=0))
        return len(words), struct.pack(f"<{len(ends)}i", *ends), b"".join(words)


def every(table):
    """The names of all columns of a table, the optional ones included."""
    return [column.name for column in TABLES[table]]


def sample(table, rows=3):
    """Values for every column of a table, told apart by column and row; every fifth column has a null."""
    columns = {}
    for number, column in enumerate(TABLES[table]):
        kind = column.kind
        values = []
        for row in range(rows):
            if kind == "bool":
                value = (row + number) % 2 == 0
            elif kind == "text":
                value = f"{column.name}-{row % 3}"
            elif kind.startswith("enum:"):
                words = ENUMS[kind[5:]]
                value = words[(row + number) % len(words)]
            elif kind == "instant":
                value = 1_700_000_000_000_000_001 + row * 1_001 + number
            else:
                value = number * 100 + row
            values.append(None if number % 5 == 0 and row == 1 else value)
        columns[column.name] = values
    return columns
