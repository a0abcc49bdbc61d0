"""Pack the survey extract into the one small file that the demo ships.

    python configs/demo/encode.py PERSONS.parquet LABELS.parquet configs/demo/data/census.parquet

Ran once. PERSONS holds `id`, the 16 features and `year`; LABELS holds `id` and `employed`.
Ids are used to join the two and then dropped. The order of rows is kept, because it says
who lives together. Every value fits int8: the year is stored without its century.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from census import FEATURES
from numpy.typing import NDArray


def _int8(name: str, values: NDArray[Any]) -> pa.Array:
    small = values.astype(np.int8)
    if not np.array_equal(small, values):
        raise SystemExit(f"column {name}: a value is no whole number from -128 to 127")
    return pa.array(small)


def encode(persons: Path, labels: Path, out: Path) -> None:
    """Join, drop ids, narrow and compress. Raises SystemExit if that would lose anything."""
    people, answers = pq.read_table(persons), pq.read_table(labels)
    if not people["id"].equals(answers["id"]):
        raise SystemExit("column id: both files must list the same people in the same order")
    columns = {name: _int8(name, people[name].to_numpy()) for name in FEATURES}
    columns["year"] = _int8("year", people["year"].to_numpy() - 2000)
    columns["employed"] = _int8("employed", answers["employed"].to_numpy())
    # Dictionaries pack a code into as few bits as it has values, which zstd then shortens:
    # 0.98 MB, against 1.07 MB without them. One page a column, because zstd looks no further
    # than a page, and no statistics, because nobody filters this file.
    pq.write_table(
        pa.table(columns),
        out,
        compression="zstd",
        compression_level=19,
        use_dictionary=True,
        write_statistics=False,
        row_group_size=len(people),
        max_rows_per_page=len(people),
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("persons", type=Path, help="Parquet file of features")
    parser.add_argument("labels", type=Path, help="Parquet file of labels")
    parser.add_argument("out", type=Path, help="Parquet file to write")
    arguments = parser.parse_args()
    encode(arguments.persons, arguments.labels, arguments.out)
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {pq.read_metadata(arguments.out).num_rows:,} people, {size:,} bytes")


if __name__ == "__main__":
    main()
