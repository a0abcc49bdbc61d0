"""The demo's people as requests to the gateway, and as the table that `make up` loads.

python configs/demo/people.py --person 42 > request.json
curl -s localhost:8000/v2/models/employment/infer -d @request.json

python configs/demo/people.py --table configs/demo/data/people.parquet
python configs/demo/people.py --labels configs/demo/data/employed.parquet
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from census import FEATURES, PEOPLE, people
from numpy.typing import NDArray

FLOATS: Final = {"AGEP"}
"""Features that the views keep as float32; the others are int32."""


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def request(
    person_id: int, features: NDArray[Any], *, whole: bool = False, key: bool = False
) -> dict[str, Any]:
    """Build an Open Inference Protocol request for one person.

    Args:
        person_id: 1 to `PEOPLE`; decides which version answers.
        features: the person's row, shape [16], columns as `FEATURES`.
        whole: send the model's input `X` [1, 16] instead of one [1, 1] tensor a feature.
        key: send nothing but `person_id`; the gateway has the features.
    """
    inputs = [_tensor("person_id", "INT64", [1], [person_id])]
    if key:
        pass
    elif whole:
        inputs.append(_tensor("X", "FP32", [1, len(FEATURES)], features.tolist()))
    else:
        for name, value in zip(FEATURES, features.tolist(), strict=True):
            is_float = name in FLOATS
            inputs.append(
                _tensor(
                    name,
                    "FP32" if is_float else "INT32",
                    [1, 1],
                    [value if is_float else int(value)],
                )
            )
    return {"inputs": inputs}


def table() -> pa.Table:
    """Everybody with a number: `person_id` and the features, as the views keep them."""
    rows = people().features
    columns = {"person_id": np.arange(1, PEOPLE + 1)}
    for at, name in enumerate(FEATURES):
        columns[name] = rows[:, at].astype("f4" if name in FLOATS else "i4")
    return pa.table(columns)


def labels() -> pa.Table:
    """What is known of everybody: `person_id` and `employed`, 1 or 0."""
    return pa.table(
        {"person_id": np.arange(1, PEOPLE + 1), "employed": people().employed.astype("i1")}
    )


def text(message: dict[str, Any]) -> str:
    """JSON with one tensor a line."""
    lines = ",\n".join(f"    {json.dumps(tensor)}" for tensor in message["inputs"])
    return f'{{\n  "inputs": [\n{lines}\n  ]\n}}'


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--person", type=int, help=f"print a request: person_id, 1 to {PEOPLE}")
    what.add_argument("--table", type=Path, metavar="FILE", help="write everybody as Parquet")
    what.add_argument("--labels", type=Path, metavar="FILE", help="write who works as Parquet")
    sent = parser.add_mutually_exclusive_group()
    sent.add_argument("--whole", action="store_true", help="send X [1, 16] in one tensor")
    sent.add_argument("--key", action="store_true", help="send person_id alone")
    arguments = parser.parse_args()
    if arguments.table is not None:
        pq.write_table(table(), arguments.table, compression="zstd", compression_level=19)
        return
    if arguments.labels is not None:
        pq.write_table(labels(), arguments.labels, compression="zstd", compression_level=19)
        return
    if not 1 <= arguments.person <= PEOPLE:
        parser.error(f"--person must be 1 to {PEOPLE}, not {arguments.person}")
    row = people().features[arguments.person - 1]
    print(text(request(arguments.person, row, whole=arguments.whole, key=arguments.key)))


if __name__ == "__main__":
    main()
