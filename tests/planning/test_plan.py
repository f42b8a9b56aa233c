"""`Plan`: the facts of a run put together, and its JSON form."""

from __future__ import annotations

import json

from mlxsched.analysis.findings import Finding
from mlxsched.config import load_config
from mlxsched.planning.length import plan_length
from mlxsched.planning.plan import DataSize, ModelSize, make_plan
from mlxsched.planning.schedule import resolve_schedule


def planned(rows=100, valid_rows=20, findings=(), **flags):
    loaded = load_config(flags=flags)
    length = plan_length(loaded.config, rows)
    schedule = resolve_schedule(loaded.config, loaded.origins, length.updates)
    data = DataSize(rows, valid_rows, 0, tokens=1000, targets=400)
    return make_plan(loaded.config, length, schedule, data, ModelSize(1000, 100, 0.12345), findings)


def test_a_plan_in_json_has_findings_beside_notes_and_warnings():
    note = Finding("memory", "note", "micro-batches of 512 tokens")
    record = json.loads(json.dumps(planned(findings=[note], batch_size=128, iters=3, warmup=0).to_dict()))
    assert record["notes"] == ["micro-batches of 512 tokens"]
    assert [finding["code"] for finding in record["findings"]] == ["memory", "few_rows"]
    assert record["warnings"] == [record["findings"][1]["evidence"] + ". " + record["findings"][1]["fix"]]
    assert record["peak_memory_gb"] == 0.123


def test_the_plan_has_the_lengths_of_the_run():
    plan = planned(rows=100, batch_size=8, epochs=2)
    assert (plan.updates, plan.updates_per_epoch, plan.epochs, plan.batch_size) == (26, 13, 2.0, 8)
    assert plan.schedule["name"] == "warmup_linear" and plan.schedule["steps"] == 26


def test_only_the_evaluated_rows_count_for_the_interval():
    assert planned(valid_rows=10_000, batch_size=8, epochs=100).steps_per_eval == 1300
    assert planned(valid_rows=10_000, batch_size=8, epochs=100, val_batches=2).steps_per_eval == 130
    assert planned(valid_rows=10_000, steps_per_eval=7).steps_per_eval == 7
