"""The bundled data: what its script makes, all of it formulas, and no row of one split in another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest

from mlxsched.bundled import data_path
from mlxsched.errors import UsageError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[tuple[str, str]]]:
    found = {}
    for name in SPLITS:
        lines = (data_path("excel") / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line)["messages"] for line in lines]
        assert all([turn["role"] for turn in row] == ["user", "assistant"] for row in rows)
        found[name] = [(row[0]["content"], row[1]["content"]) for row in rows]
    return found


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def _key(request: str) -> str:
    return " ".join(re.findall(r"[a-z0-9.$:!]+", request.lower()))


def test_there_are_enough_rows(splits):
    assert len(splits["train"]) >= 1500 and len(splits["valid"]) >= 200 and len(splits["test"]) >= 200


@pytest.mark.parametrize(("one", "other"), [("test", "train"), ("test", "valid"), ("valid", "train")])
def test_no_request_and_no_formula_is_in_two_splits(splits, one, other):
    assert not {_key(row[0]) for row in splits[one]} & {_key(row[0]) for row in splits[other]}
    assert not {row[1] for row in splits[one]} & {row[1] for row in splits[other]}


def test_rows_differ_in_more_than_their_names(splits):
    """With names and numbers taken out there are still many formulas, and more ways to ask for them."""
    shapes = {
        re.sub(r"[A-Z]+\d+|\b[A-P]\b|[\d.]+|\"[^\"]*\"|'[^']*'", "_", formula)
        for _, formula in splits["train"]
    }
    words = {re.sub(r"[A-Z]\w*|\d+|\"[^\"]*\"", "_", request) for request, _ in splits["train"]}
    functions = {name for _, formula in splits["train"] for name in re.findall(r"([A-Z.]+)\(", formula)}
    assert len(shapes) > 400 and len(words) > 1200 and len(functions) >= 50


@pytest.mark.parametrize(
    "part", ["!", "'!", "DATE(", "XLOOKUP(", "VLOOKUP(", "MATCH(", "IF(AND(", '"&', "ROUND(", "<>"]
)
def test_each_kind_of_formula_is_there(splits, part):
    assert sum(part in formula for _, formula in splits["train"]) >= 15
    assert any(part in formula for _, formula in splits["test"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("split", SPLITS)
def test_every_formula_is_parsed_and_computed(splits, split, scripts):
    pytest.importorskip("formulas")
    from excel.check import value

    for _, formula in splits[split]:
        assert formula.startswith("=")
        value(formula)


@pytest.mark.parametrize(
    "wrong",
    [
        "=SUM((A1:A3)",
        "=SUMM(A1:A3)",
        "=VLOOKUP(A1)",
        "=SUM(A9:A3)",
        "=IF(A1>,1,2)",
        "=A1 B2",
        "=DATE(2024,3)",
    ],
)
def test_the_check_refuses_what_is_no_formula(wrong, scripts):
    pytest.importorskip("formulas")
    from excel.check import value

    with pytest.raises(ValueError, match=re.escape(wrong)):
        value(wrong)


@pytest.mark.parametrize(
    ("formula", "answer"),
    [
        ("=SUM(B2:B4)", 3 * 45292 + 3),
        ("=ROUND(AVERAGE(B2:B3),1)", 45292.5),
        ('=COUNTIF(B2:B9,">45295")', 4),
        ('=IF(A1>1,"Paid","Open")', "Paid"),
        ("=YEAR(A1)", 2024),
        ('=DATEDIF(DATE(2021,3,1),DATE(2024,2,1),"y")', 2),
        ('=LEFT(A1,2)&"-"&"x"', "45-x"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_check_computes(formula, answer, scripts):
    pytest.importorskip("formulas")
    from excel.check import value

    assert value(formula) == answer


def test_the_files_are_what_the_script_makes(splits, scripts):
    from make_excel_data import line, make

    for name, rows in make().items():
        text = (data_path("excel") / f"{name}.jsonl").read_text(encoding="utf-8")
        assert "".join(map(line, rows)) == text


def test_what_is_said_and_what_is_written_name_the_same_cells(splits):
    """A cell of the formula was named in the request, in one spelling or another."""
    for request, formula in splits["train"] + splits["test"]:
        said = set(re.findall(r"\d+", request)) | {"0", "1", "2"}
        for name in re.findall(r"\$?[A-P]\$?(\d+)", re.sub(r"\"[^\"]*\"|'[^']*'|Sheet\d", "", formula)):
            assert name in said, (request, formula)


def test_the_pretraining_text_holds_no_request_beside_its_formula(scripts, splits):
    from excel.corpus import documents

    avoid = frozenset(text for rows in splits.values() for row in rows for text in row)
    requests = {request for rows in splits.values() for request, _ in rows}
    made = documents(7, avoid)
    for _ in range(3000):
        document = next(made)
        lines = document.text.split("\n")
        assert not avoid.intersection(lines)
        assert document.prompt not in requests
        formulas = sum(line.startswith("=") for line in lines)
        assert formulas in (0, len(lines))  # formulas stand alone
        if document.prompt and formulas:
            assert document.prompt.endswith(document.text)  # copied, not worked out


def test_an_unknown_name_is_a_users_mistake():
    with pytest.raises(UsageError, match="excel"):
        data_path("exel")


def test_requests_are_a_function_of_the_seed(scripts):
    from excel.requests import request

    first = [request(Random(3)) for _ in range(2)]
    assert first[0] == first[1]


def test_scripts_are_where_the_tests_look():
    assert (SCRIPTS / "make_excel_data.py").is_file()
