"""Write the bundled data set: requests in English and the formulas that answer them.

    python scripts/make_excel_data.py            # writes mlxsched/bundled/excel/{train,valid,test}.jsonl
    python scripts/make_excel_data.py --check    # fails if the files differ from what this script generates

The same seed gives the same bytes. `formulas` parses and computes every formula (pip install "formulas", part of the
extra `dev`). No request and no formula appears twice, within a split or across splits.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random

from excel.check import value
from excel.parts import Said
from excel.requests import request

SEED = 20
SIZES = {
    "test": 200,
    "valid": 200,
    "train": 4000,
}  # generated in this order, so the test set is drawn first
MAX_CHARACTERS = 180  # of request and formula together; keeps rows of similar length
OUT = Path(__file__).resolve().parent.parent / "mlxsched" / "bundled" / "excel"


def make(seed: int = SEED) -> dict[str, list[Said]]:
    """The splits, in the order of `SIZES`; no request and no formula twice anywhere."""
    rng = Random(seed)
    requests: set[str] = set()
    formulas: set[str] = set()
    splits: dict[str, list[Said]] = {}
    for name, size in SIZES.items():
        rows = splits[name] = []
        while len(rows) < size:
            row = request(rng)
            key = " ".join(row.text.lower().split())
            if (
                key in requests
                or row.formula in formulas
                or len(row.text) + len(row.formula) > MAX_CHARACTERS
            ):
                continue
            requests.add(key)
            formulas.add(row.formula)
            rows.append(row)
    return splits


def line(row: Said) -> str:
    """One row in chat format, as JSON."""
    messages = [{"role": "user", "content": row.text}, {"role": "assistant", "content": row.formula}]
    return json.dumps({"messages": messages}, ensure_ascii=False, separators=(", ", ": ")) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--check", action="store_true", help="compare with the existing files, write nothing")
    options = parser.parse_args()
    for name, rows in make().items():
        for row in rows:
            value(row.formula)
        text, path = "".join(map(line, rows)), options.out / f"{name}.jsonl"
        if not options.check:
            options.out.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            print(f"{path} differs from what this script generates; run it without --check", file=sys.stderr)
            return 1
        print(f"{name}: {len(rows)} rows, {len(text)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
