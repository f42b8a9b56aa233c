"""The string form: what it accepts, and that nothing else gets through."""

from __future__ import annotations

import pytest

import mlxsched as ms
from mlxsched.schedules.serialization import MAX_LENGTH


def test_string_forms_take_positions_and_nesting():
    text = "join_schedules([linear_schedule(0, 1e-1, 10), cosine_decay(1e-1, 200)], [10])"
    assert ms.parse(text) == ms.join_schedules(
        [ms.linear_schedule(0, 0.1, 10), ms.cosine_decay(0.1, 200)], [10]
    )
    assert ms.parse(' wsd ( 2e-4 , 1_000 , warmup = .05, shape = "linear" , ) ').warmup_steps == 50
    assert ms.parse("clamp(constant(1.), 0, None)") == ms.clamp(ms.constant(1.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "5",
        "'wsd'",
        "constant(2e-4",
        "constant(2e-4))",
        "constant(2e-4) constant(1)",
        "constant(peak=2e-4, peak=1)",
        "constant(1, 2)",
        "constant(peak=nan)",
        "constant(peak=inf)",
        "constant(peak=1e999)",
        "constant(peak=1+1)",
        "constant(peak=2**9)",
        "constant(peak=[x for x in (1,)])",
        "constant(peak={})",
        "constant(peak=mx.array(1))",
        "constant.__class__(1)",
        "constant(peak=1).__class__",
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "eval('1')",
        "exec(1)",
        "parse(1)",
        "Schedule()",
        "lambda: 1",
        "os.system('true')",
        "constant(peak=f'{1}')",
        "constant(peak='\\x41')",
        "scale(schedule=unknown(1), factor=1)",
        "scale(schedule=5, factor=1)",
        "scale(" * 100,
        "table([" + "[" * 100,
        "table([" + "1," * MAX_LENGTH + "])",
        "constant(" + "9" * 5000 + ")",
        "a" * 10_000,
    ],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ms.ScheduleError) as caught:
        ms.parse(text)
    assert len(str(caught.value)) < 1000
