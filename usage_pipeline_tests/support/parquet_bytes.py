"""Parquet files byte by byte: what pyarrow would never write is made by patching what it wrote.

Belongs here: Thrift's compact protocol, enough of it to take a footer or a page header apart and put it together, and
where pages lie. Does not: which files are worth making (`parquet_zoo.py`). Numbers of fields are those of parquet.thrift.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
MAGIC = b"PAR1"


@dataclass
class Struct:
    """A Thrift struct: type and value by number of field, in the order that they were written."""

    fields: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def __getitem__(self, number: int) -> Any:
        return self.fields[number][1]

    def __contains__(self, number: int) -> bool:
        return number in self.fields

    def __setitem__(self, number: int, value: Any) -> None:
        """Changes a field that is there; its type stays."""
        self.fields[number] = (self.fields[number][0], value)

    def put(self, number: int, kind: int, value: Any) -> None:
        self.fields = dict(sorted((self.fields | {number: (kind, value)}).items()))

    def drop(self, *numbers: int) -> None:
        for number in numbers:
            self.fields.pop(number, None)


@dataclass
class Sequence:
    """A Thrift list: the type of its items, and the items."""

    kind: int
    items: list[Any]


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def value(self, kind: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self.byte()
        if kind in (I16, I32, I64):
            return self.zigzag()
        if kind in (DOUBLE, BINARY):
            length = 8 if kind == DOUBLE else self.varint()
            self.at += length
            return self.data[self.at - length : self.at]
        if kind == LIST:
            head = self.byte()
            size = head >> 4 if head >> 4 < 15 else self.varint()
            inner = head & 15
            items = [self.byte() if inner in (TRUE, FALSE) else self.value(inner) for _ in range(size)]
            return Sequence(inner, items)
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"type {kind} does not occur in Parquet")

    def struct(self) -> Struct:
        found, number = Struct(), 0
        while head := self.byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self.zigzag()
            found.fields[number] = (kind, self.value(kind))
        return found


def read_struct(data: bytes, at: int = 0) -> tuple[Struct, int]:
    """The struct that begins at `at`, and where it ends."""
    reader = _Reader(data, at)
    return reader.struct(), reader.at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _zigzag(value: int) -> bytes:
    return _varint(value * 2 if value >= 0 else -value * 2 - 1)


def _write(kind: int, value: Any) -> bytes:
    if kind == BYTE:
        return bytes([value])
    if kind in (I16, I32, I64):
        return _zigzag(value)
    if kind == DOUBLE:
        return bytes(value)
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    if kind == LIST:
        size = len(value.items)
        head = bytes([size << 4 | value.kind]) if size < 15 else bytes([0xF0 | value.kind]) + _varint(size)
        flags = value.kind in (TRUE, FALSE)
        return head + b"".join(bytes([item]) if flags else _write(value.kind, item) for item in value.items)
    return write_struct(value)


def write_struct(value: Struct) -> bytes:
    """A struct in Thrift's compact protocol."""
    out, before = bytearray(), 0
    for number, (kind, content) in value.fields.items():
        flag = kind in (TRUE, FALSE)
        written = (TRUE if content else FALSE) if flag else kind
        step = number - before
        out += bytes([step << 4 | written]) if 0 < step < 16 else bytes([written]) + _zigzag(number)
        out += b"" if flag else _write(kind, content)
        before = number
    return bytes(out) + b"\0"


def read_footer(data: bytes) -> Struct:
    """The FileMetaData of a file."""
    (length,) = struct.unpack("<I", data[-8:-4])
    return read_struct(data, len(data) - 8 - length)[0]


def body(data: bytes) -> bytes:
    """All that stands before the footer."""
    (length,) = struct.unpack("<I", data[-8:-4])
    return data[: len(data) - 8 - length]


def with_footer(body: bytes, footer: bytes, length: int | None = None) -> bytes:
    """A file of a body and a footer; `length` is what it says of its footer, if it lies."""
    return body + footer + struct.pack("<I", len(footer) if length is None else length) + MAGIC


def edit_footer(data: bytes, change: Callable[[Struct], None]) -> bytes:
    """The file with a footer that `change` was let at; all offsets stay true, since the footer comes last."""
    footer = read_footer(data)
    change(footer)
    return with_footer(body(data), write_struct(footer))


def schema_of(footer: Struct, column: str) -> Struct:
    """The SchemaElement of a column (4 is its name)."""
    found: Struct = next(e for e in footer[2].items if e[4] == column.encode())
    return found


def chunks(footer: Struct) -> Iterator[tuple[str, Struct]]:
    """Name and ColumnMetaData of each column chunk, row group after row group."""
    for group in footer[4].items:
        for chunk in group[1].items:
            yield ".".join(part.decode() for part in chunk[3][3].items), chunk[3]


@dataclass(frozen=True)
class Page:
    """Where a page lies: its header from `start` to `body`, what its checksum covers from there to `end`."""

    column: str
    start: int
    body: int
    end: int
    header: Struct


def pages(data: bytes) -> list[Page]:
    """All pages of a file, by column chunk."""
    found = []
    for column, chunk in chunks(read_footer(data)):
        at = chunk[11] if 11 in chunk else chunk[9]
        end = at + chunk[7]
        while at < end:
            header, content = read_struct(data, at)
            found.append(Page(column, at, content, content + header[3], header))
            at = content + header[3]
    return found


def edit_page(data: bytes, column: str, change: Callable[[Struct], None], index: int = 0) -> bytes:
    """The file with the header of one page of a column changed, in as many bytes as before."""
    page = [page for page in pages(data) if page.column == column][index]
    change(page.header)
    header = write_struct(page.header)
    if len(header) != page.body - page.start:
        raise ValueError("the header has another length now: offsets behind it would be wrong")
    return data[: page.start] + header + data[page.body :]
