"""Turns the files of a fuzzed lake into bytes, and damages those that are to be broken.

Belongs here: Parquet as several writers would write it, CSV in its dialects, and damage. Does not: what is in the
files (`lake_worlds.py`), nor what must become of them (`lake_oracle.py`).
"""

import csv
import gzip
import io
import random
import uuid
from datetime import UTC
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline_tests.support.lake_oracle import Column, StoredFile

PARQUET_DAMAGE = ("zero bytes", "truncated", "garbage", "wrong magic", "encrypted", "page checksum")
CSV_DAMAGE = ("zero bytes", "garbage")
GZIP_DAMAGE = ("gzip cut", "gzip checksum")
TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "large_text": pa.large_string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "binary": pa.binary(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "clock": pa.time64("us"),
    "list": pa.list_(pa.int64()),
    "struct": pa.struct([("x", pa.int64())]),
    "ts_ms": pa.timestamp("ms"),
    "ts_us": pa.timestamp("us"),
    "ts_ns": pa.timestamp("ns"),
    "int96": pa.timestamp("us"),
    "tz_ms": pa.timestamp("ms", tz="UTC"),
    "tz_us": pa.timestamp("us", tz="America/Denver"),
}


def to_bytes(file: StoredFile) -> bytes:
    """A file as it is stored."""
    if file.raw is not None:
        return file.raw
    if file.damage == "zero bytes":
        return b""
    if file.damage == "garbage":
        noise = random.Random(file.rows).randbytes(700)
        return noise if file.format == "parquet" else b"nothing here\nis a table\n"
    return _parquet(file) if file.format == "parquet" else _csv(file)


def _array(column: Column, scale: int) -> pa.Array:
    if column.kind == "decimal":
        return pa.array(column.values, pa.decimal128(38, scale))
    if column.kind == "uuid":
        return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(column.values, pa.binary(16)))
    if column.kind in ("tz_ms", "tz_us"):
        return pa.array([v and v.astimezone(UTC) for v in column.values], TYPES[column.kind])
    if column.kind == "dictionary":
        return pa.array(column.values, pa.string()).dictionary_encode()
    return pa.array(column.values, TYPES[column.kind])


def _parquet(file: StoredFile) -> bytes:
    options = dict(file.writer)
    scale = options.pop("scale", 10)
    if file.damage == "page checksum":
        options |= {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    table = pa.table({column.name: _array(column, scale) for column in file.columns})
    sink = io.BytesIO()
    int96 = any(column.kind == "int96" for column in file.columns)
    pq.write_table(table, sink, use_deprecated_int96_timestamps=int96, **options)
    return _damaged_parquet(sink.getvalue(), file.damage)


def _damaged_parquet(data: bytes, damage: str) -> bytes:
    if damage == "truncated":
        return data[: len(data) * 3 // 5]
    if damage == "wrong magic":
        return data[:-4] + b"PARX"
    if damage == "encrypted":
        return b"PARE" + data[4:-4] + b"PARE"
    if damage == "page checksum":
        return _with_a_flipped_byte(data)
    return data


def _with_a_flipped_byte(data: bytes) -> bytes:
    """Flips the last bit of the last value of the first column: readable as before, but for its checksum."""
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    last = chunk.data_page_offset + chunk.total_compressed_size - 1
    return data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :]


def _csv(file: StoredFile) -> bytes:
    options = file.writer
    sink = io.StringIO(newline="")
    writer = csv.writer(
        sink,
        delimiter=options.get("delimiter", ","),
        quoting=csv.QUOTE_ALL if options.get("quote_all") else csv.QUOTE_MINIMAL,
        lineterminator="\r\n" if options.get("crlf") else "\n",
    )
    writer.writerow([column.name for column in file.columns])
    writer.writerows(
        [["" if c is None else c for c in row] for row in zip(*(c.values for c in file.columns), strict=True)]
    )
    text = sink.getvalue()
    if options.get("no_last_line_end"):
        text = text.rstrip("\r\n")
    return _packed(text.encode("utf-8-sig" if options.get("bom") else "utf-8"), options.get("codec"), file.damage)


def _packed(data: bytes, codec: str | None, damage: str) -> bytes:
    if codec == "zst":
        return bytes(pa.Codec("zstd").compress(data, asbytes=True))
    if codec != "gz":
        return data
    packed = gzip.compress(data, mtime=0)
    if damage == "gzip cut":
        return packed[: len(packed) * 3 // 5]
    if damage == "gzip checksum":
        return packed[:-8] + bytes([packed[-8] ^ 255]) + packed[-7:]
    return packed


def parquet_options(rng: random.Random) -> dict[str, Any]:
    """How one of many writers would write."""
    options: dict[str, Any] = {
        "compression": rng.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "use_dictionary": rng.random() < 0.5,
        "data_page_version": rng.choice(["1.0", "2.0"]),
        "data_page_size": rng.choice([64, 1024, 1024 * 1024]),
        "row_group_size": rng.choice([2, 7, 10_000]),
        "write_statistics": rng.random() < 0.8,
        "store_schema": rng.random() < 0.7,
        "write_page_checksum": rng.random() < 0.3,
        "write_page_index": rng.random() < 0.2,
        "scale": rng.choice([2, 10]),
    }
    return options


def csv_options(rng: random.Random, delimiter: str) -> dict[str, Any]:
    """A dialect of CSV."""
    return {
        "delimiter": delimiter,
        "quote_all": rng.random() < 0.3,
        "crlf": rng.random() < 0.3,
        "bom": rng.random() < 0.2,
        "no_last_line_end": rng.random() < 0.2,
    }


def uuid_bytes(text: str) -> bytes:
    """A UUID as Parquet stores it."""
    return uuid.UUID(text).bytes
