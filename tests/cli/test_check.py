"""``mlxsched check``: words, files, JSON, exit codes and fixes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from mlxsched.cli.main import main
from mlxsched.config.presets import preset_names
from mlxsched.config.yaml_edit import with_values
from mlxsched.render.describe import example_spec
from mlxsched.schedules import parse
from mlxsched.schedules.registry import alias_names, entry, names

HEALTHY = "warmup_cosine(peak=2e-4, steps=1000, warmup=50)"
ACCUMULATED = """\
# mlx-lm
iters: 1000
batch_size: 4
grad_accumulation_steps: 8
optimizer: adam
learning_rate: 1e-4
lr_schedule:
  name: cosine_decay  # over all iterations
  warmup: 10
  arguments: [1e-4, 1000, 1e-6]
seed: 3  # kept
"""


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["check", *arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, _ = check(capsys, *arguments, "--json")
    result: dict[str, Any] = json.loads(out)
    assert code == (0 if result["healthy"] else 3)
    return result


def codes(result: dict[str, Any]) -> set[str]:
    return {one["code"] for one in result["findings"] if one["severity"] != "note"}


def test_a_healthy_schedule_is_said_to_be_healthy(capsys):
    code, out, err = check(capsys, HEALTHY)
    assert code == 0 and "learning rate" in out and "healthy over 1,000 updates" in err
    assert told(capsys, HEALTHY) == {"healthy": True, "findings": []}


def test_problems_stand_beneath_the_picture_and_exit_with_3(capsys):
    code, out, err = check(capsys, "constant(peak=2e-4)", "--steps", "500")
    assert code == 3 and "2 problems" in err
    assert out.index("learning rate") < out.index("no_warmup") < out.index("flat")
    assert "fix: warmup_linear(peak=0.0002, steps=500, warmup=25" in out


def test_json_has_the_keys_of_the_contract(capsys):
    result = told(capsys, "warmup_linear(peak=2e-4, steps=2000, warmup=50)", "--steps", "1000")
    assert [sorted(one) for one in result["findings"]] == [
        ["code", "evidence", "fix", "severity", "update", "why"]
    ]
    assert result["findings"][0]["code"] == "never_ends" and result["findings"][0]["update"] == 999


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_healthy_and_does_not_criticize_itself(name, capsys):
    assert told(capsys, name) == {"healthy": True, "findings": []}
    assert told(capsys, name, "--steps", "3000")["healthy"] or name == "debug"  # constant, for short tests


# Why the examples of the gallery that are no schedule of a whole run are not healthy.
REASONS = {
    "no_warmup", "flat", "too_slow", "too_steep", "staircase", "cliff", "spike", "rate_too_high", "warmup_too_long",
}  # fmt: skip
WHOLE_RUN = [
    *("warmup_linear", "warmup_cosine", "wsd", "trapezoid", "knee", "tri_stage", "infinite", "wsd_cycles"),
    *("one_cycle", "cosine_restarts", "with_warmup", "cooldown", "piecewise", "repeat", "plateau", "greedy"),
    *(
        "hf.linear",
        "hf.cosine",
        "hf.polynomial",
        "hf.warmup_stable_decay",
        "torch.OneCycleLR",
        "keras.CosineDecay",
    ),
]


@pytest.mark.parametrize("name", [*names(), *alias_names()])
def test_every_schedule_of_the_gallery_is_healthy_or_says_why_not(name, capsys):
    spec = example_spec(entry(name))
    if not spec:
        pytest.skip("no example")
    result = told(capsys, spec)
    problems = [one for one in result["findings"] if one["severity"] != "note"]
    assert {one["code"] for one in problems} <= REASONS
    assert all(one["evidence"] and one["why"] and parse(one["fix"]) for one in problems)
    if name in WHOLE_RUN:
        assert result["healthy"], problems


def test_mlx_lms_file_with_accumulation_is_fixed(tmp_path, capsys):
    file, fixed = tmp_path / "lora.yaml", tmp_path / "fixed.yaml"
    file.write_text(ACCUMULATED)
    result = told(capsys, str(file), "--fix", str(fixed))
    assert codes(result) == {"accumulation_mismatch"}
    excess = [one for one in result["findings"] if one["code"] == "adam_early_excess"]
    assert excess and excess[0]["severity"] == "note"  # mlxsched corrects the bias
    text = fixed.read_text()
    assert "seed: 3  # kept" in text and text.startswith("# mlx-lm\n")
    # 125 updates, of which 11 pass before the decay begins
    assert yaml.safe_load(text)["lr_schedule"]["arguments"][1] == 114
    assert told(capsys, str(fixed))["healthy"]


def test_fix_never_overwrites_without_force(tmp_path, capsys):
    file = tmp_path / "mine"
    file.write_text("precious")
    assert check(capsys, "constant(peak=2e-4)", "--fix", str(file))[0] == 2
    assert file.read_text() == "precious"
    code, _, err = check(capsys, "constant(peak=2e-4)", "--fix", str(file), "--force")
    assert code == 3 and f'`mlxsched check "$(cat {file})"`' in err  # a spec, not a config file
    assert parse(file.read_text().strip())(1000) == 0


def test_fix_without_a_file_prints_and_a_healthy_schedule_is_left_alone(tmp_path, capsys):
    code, out, err = check(capsys, "constant(peak=2e-4)", "--fix")
    assert code == 3 and parse(out.strip()).steps  # nothing but the schedule, so that it can be redirected
    assert "learning rate" in err and "no_warmup, update 0" in err
    assert told(capsys, "constant(peak=2e-4)", "--fix")["fixed"].startswith("warmup_linear(")
    assert check(capsys, HEALTHY, "--fix", str(tmp_path / "none.yaml"))[0] == 0
    assert not (tmp_path / "none.yaml").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iters: 200\nwarmup: 150\n", {"warmup_too_long"}),
        ("iters: 200\nwarmup: 300\n", {"never_peaks"}),
        ("iters: 200\nwarmup_init: 2e-4\n", {"no_warmup"}),
        ("iters: 1000\nschedule: constant\n", {"flat"}),
        ("iters: 1000\nend_lr: 1e-4\n", {"too_slow"}),
        ("iters: 1000\nlearning_rate: 0.3\n", {"rate_too_high"}),
        ("iters: 1000\nbias_correction: false\n", {"adam_early_excess"}),
        ("iters: 4\ngrad_accumulation_steps: 8\n", {"zero_updates"}),
        ("iters: 1000\nschedule: exponential(factor=0.98)\n", {"too_steep"}),
        (
            "iters: 100\nlr_schedule: {name: linear_schedule, warmup: 4, arguments: [0.0, 1e-3, 10]}\n",
            {"warmup_target", "flat"},
        ),
    ],
)
def test_a_config_is_healthy_after_its_fix(text, expected, tmp_path, capsys):
    file, fixed = tmp_path / "run.yaml", tmp_path / "fixed.yaml"
    file.write_text(text)
    found = told(capsys, str(file), "--fix", str(fixed))
    assert expected <= codes(found)
    again = told(capsys, str(fixed))
    assert again["healthy"], again


def test_the_batch_of_a_preset_scales_its_rate(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("preset: all-purpose\nbatch_size: 32\n")
    (one,) = [one for one in told(capsys, str(file))["findings"] if one["code"] == "batch_scaling"]
    assert one["severity"] == "note" and one["fix"] == "learning_rate: 4e-4"  # 2e-4 * sqrt(32 / 8)
    file.write_text("preset: all-purpose\nbatch_size: 32\noptimizer: sgd\n")
    (one,) = [one for one in told(capsys, str(file))["findings"] if one["code"] == "batch_scaling"]
    assert one["fix"] == "learning_rate: 8e-4"  # 2e-4 * 32 / 8


def test_training_arguments_of_hugging_face(tmp_path, capsys):
    file = tmp_path / "training_args.json"
    arguments = {
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "max_steps": 1000,
        "output_dir": "out",
    }
    file.write_text(json.dumps({**arguments, "per_device_train_batch_size": 8, "optim": "adamw_torch"}))
    result = told(capsys, str(file), "--fix", str(tmp_path / "fixed.yaml"))
    assert codes(result) == {"no_warmup", "flat"}
    assert told(capsys, str(tmp_path / "fixed.yaml"))["healthy"]


def test_an_unknown_word_is_a_mistake_of_the_user(capsys):
    code, _, err = check(capsys, "cosin")
    assert code == 2 and "cosine" in err


def test_an_edit_keeps_comments_and_replaces_whole_blocks():
    text = "a: 1  # one\nb:\n  c: 2\n  # inside\n  d: 3\n# after\ne: 4"
    assert (
        with_values(text, {"b": 5, "f": 6}, {"b": "b: 5", "f": "f: 6"})
        == "a: 1  # one\nb: 5\n# after\ne: 4\nf: 6\n"
    )


def test_an_unusual_layout_is_written_anew():
    text = '{a: 1, "b": 2}\n'
    assert yaml.safe_load(with_values(text, {"b": 5}, {"b": "b: 5"})) == {"a": 1, "b": 5}


def test_the_picture_marks_the_places_of_the_problems(capsys):
    assert main(["check", "multistep(init=2e-4, milestones=[300,600], factor=0.1)", "--steps", "1000"]) == 3
    picture = capsys.readouterr().out.partition("\n\n")[0]
    names = picture.splitlines()[1]
    assert names.split() == ["no_warmup", "staircase"]
    assert (
        15 <= names.index("staircase") - names.index("no_warmup") <= 17
    )  # 300 of 1000 updates, on 54 columns
