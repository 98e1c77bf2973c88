"""Between rows and Parquet: the Arrow schema of a feature set, rows to Parquet bytes, columns back to NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import canonical_json
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.batch import RowBatch
from vqa_train.store.layout import KEY_COLUMNS, SHARD_SCHEMA, VIEW_COLUMN
from vqa_train.store.rows import FACTS, FeatureRow, fact_names

_FACT_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}


def arrow_schema(spec: FeatureSpec) -> pa.Schema:
    """Columns of a shard: the key, `view`, one fixed-size list per output (nested for several axes), the facts.

    The file's metadata carries the shard schema version and the spec, each output's field its shape and names.
    """
    key = pa.field(KEY_COLUMNS[spec.modality], pa.string(), nullable=False)
    view = pa.field(VIEW_COLUMN, pa.int32(), nullable=False)
    outputs = [_output_field(output) for output in spec.outputs]
    facts = [pa.field(name, _FACT_TYPES[FACTS[name]], nullable=False) for name in fact_names(spec)]
    metadata = {"vqa_train.schema": SHARD_SCHEMA, "vqa_train.spec": canonical_json(spec.to_json())}
    return pa.schema([key, view, *outputs, *facts], metadata=metadata)


def _output_field(output: OutputSpec) -> pa.Field:
    kind = pa.float32()
    for size in reversed(output.shape):
        kind = pa.list_(pa.field("element", kind, nullable=False), size)
    metadata = {"shape": canonical_json(list(output.shape))}
    if output.names is not None:
        metadata["names"] = canonical_json(list(output.names))
    return pa.field(output.name, kind, nullable=False, metadata=metadata)


def encode(spec: FeatureSpec, batch: RowBatch) -> bytes:
    """Checked rows as the bytes of a Parquet file (zstd, byte-stream-split floats, page checksums)."""
    schema = arrow_schema(spec)
    columns: list[Any] = [pa.array(batch.keys, pa.string()), pa.array(batch.views, pa.int32())]
    for output in spec.outputs:
        column = pa.array(batch.outputs[output.name].reshape(-1))
        for axis in range(len(output.shape), 0, -1):
            kind = schema.field(output.name).type
            for _ in range(axis - 1):
                kind = kind.value_type
            column = pa.FixedSizeListArray.from_arrays(column, type=kind)
        columns.append(column)
    columns += [pa.array([facts[n] for facts in batch.facts], schema.field(n).type) for n in fact_names(spec)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema),
        sink,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=[_leaf_path(output) for output in spec.outputs],
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def _leaf_path(output: OutputSpec) -> str:
    """Parquet's own path of an output's values; every list level adds `list.element`."""
    return ".".join([output.name, *["list.element"] * len(output.shape)])


def decode(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a shard, page checksums verified.

    Raises:
        StoreError: not a Parquet file, a damaged page, a column that is not there.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            expected = shard.metadata.num_rows
            table = shard.read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"shard {str(path)!r} cannot be read: {error}", hint="run vqa-train store verify") from error
    if table.num_rows != expected:
        # A page header has no checksum: one that says it is no data page is skipped in silence.
        raise StoreError(
            f"shard {str(path)!r} is damaged: {table.num_rows} of {expected} rows can be read",
            hint="run vqa-train store verify",
        )
    if columns is not None and table.num_columns != len(columns):
        missing = sorted(set(columns) - set(table.column_names))
        raise StoreError(f"shard {str(path)!r} has no column {', '.join(missing)}", hint="run vqa-train store verify")
    return table


def to_numpy(column: Any, shape: Sequence[int]) -> NDArray[np.float32]:
    """An output column as float32 (rows, *shape), read-only.

    Raises:
        StoreError: it holds something else than float32 lists of that shape, or nulls.
    """
    # Arrow's own conversions import pandas and its compute functions, which takes longer than most reads.
    values = column.combine_chunks()
    for size in shape:
        fits = pa.types.is_fixed_size_list(values.type) and values.type.list_size == size and not values.null_count
        if not fits:
            raise StoreError(f"an output column holds {column.type}, expected float32 lists of shape {tuple(shape)}")
        values = values.values.slice(values.offset * size, len(values) * size)
    if values.type != pa.float32() or values.null_count:
        raise StoreError(f"an output column holds {column.type} with {values.null_count} nulls, expected float32")
    data = values.buffers()[1]
    flat = np.frombuffer(data, np.float32, len(values), 4 * values.offset) if len(values) else np.empty(0, np.float32)
    return flat.reshape(len(column), *shape)


def to_batch(spec: FeatureSpec, table: pa.Table) -> RowBatch:
    """Every row of a whole shard."""
    names = fact_names(spec)
    return RowBatch(
        keys=table.column(KEY_COLUMNS[spec.modality]).to_pylist(),
        views=table.column(VIEW_COLUMN).to_pylist(),
        outputs={output.name: to_numpy(table.column(output.name), output.shape) for output in spec.outputs},
        facts=table.select(names).to_pylist() if names else (),
    )


def to_rows(spec: FeatureSpec, table: pa.Table) -> list[FeatureRow]:
    """`to_batch`, row by row."""
    batch = to_batch(spec, table)
    return [
        FeatureRow(
            key=key,
            view=view,
            facts=batch.facts[i] if batch.facts else {},
            outputs={name: array[i, ...] for name, array in batch.outputs.items()},
        )
        for i, (key, view) in enumerate(zip(batch.keys, batch.views, strict=True))
    ]
