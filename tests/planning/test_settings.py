"""What a plan says about settings that may not mean what the user thinks."""

from __future__ import annotations

import pytest

from mlxsched.analysis.rates import peak_rates
from mlxsched.analysis.schedule_health import RunFacts, schedule_health
from mlxsched.config import list_presets, load_config
from mlxsched.planning.settings import settings_findings
from mlxsched.schedules import warmup_cosine

MLX_LM = "model: some/model\ntrain: true\niters: 1000\nlearning_rate: 1e-5\ndata: my/data\n"


def findings(peak=None, file=None, as_mlx_lm=False, preset=None, **flags):
    loaded = load_config(preset=preset, file=file, flags=flags, as_mlx_lm=as_mlx_lm)
    return list(settings_findings(loaded.config, loaded.origins, peak or loaded.config.learning_rate))


def codes(*args, **flags):
    return [finding.code for finding in findings(*args, **flags)]


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "lora.yaml"
        path.write_text(text)
        return path

    return write


def test_own_data_with_the_default_model_is_warned_of():
    (finding,) = findings(data="mine.jsonl")
    assert (finding.code, finding.severity) == ("default_model", "warning")
    assert "--model" in finding.fix
    assert codes(preset="laptop", data="mine.jsonl") == ["default_model"]


@pytest.mark.parametrize(
    "flags", [{}, {"data": "excel"}, {"model": "tiny", "data": "mine.jsonl"}, {"model": "some/model"}]
)
def test_a_model_that_was_chosen_is_not(flags):
    assert codes(**flags) == []


@pytest.mark.parametrize(
    ("flags", "high"),
    [
        ({"learning_rate": 3.0}, True),
        ({"learning_rate": 6e-3}, True),
        ({"learning_rate": 5e-3, "lora_plus_ratio": 16}, True),
        ({"learning_rate": 5e-3}, False),
        ({"learning_rate": 5e-3, "fine_tune_type": "dora"}, False),
        ({"learning_rate": 6e-4, "fine_tune_type": "full"}, True),
        ({"learning_rate": 5e-4, "fine_tune_type": "full"}, False),
        ({"learning_rate": 1.0, "optimizer": "sgd"}, False),
        ({"learning_rate": 1e-3, "optimizer": "lion"}, False),
        ({"learning_rate": 2e-3, "optimizer": "lion"}, True),
        ({"learning_rate": 0.02, "optimizer": "muon"}, False),
    ],
)
def test_a_rate_at_which_runs_diverge_is_warned_of(flags, high):
    assert codes(**flags) == ["rate_too_high"] * high


@pytest.mark.parametrize(
    ("ratio", "advised"), [(None, "5e-5"), (1, "2e-4"), (4, "1e-4"), (64, "2.5e-5"), (2500, "2e-6")]
)
def test_the_advised_rate_is_that_of_the_preset_whatever_its_ratio(ratio, advised):
    """LoRA+ of ratio 16 in the laptop preset has 5e-5; the largest ratios are within the bound."""
    flags = {} if ratio is None else {"lora_plus_ratio": ratio}
    (found,) = findings(preset="laptop", learning_rate=0.5, **flags)
    assert f"--learning-rate {advised}," in found.fix
    assert codes(preset="laptop", learning_rate=float(advised), **flags) == []
    assert load_config(preset="laptop").config.learning_rate == 5e-5


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd", "muon", "adafactor"])
@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_a_plan_and_the_check_of_its_schedule_have_the_same_bound(optimizer, kind):
    high = peak_rates(optimizer, kind).high
    facts = RunFacts(1000, optimizer=optimizer, fine_tune_type=kind)
    for rate, warned in ((0.99 * high, False), (1.01 * high, True)):
        flags = {"learning_rate": rate, "optimizer": optimizer, "fine_tune_type": kind}
        checked = {finding.code for finding in schedule_health(warmup_cosine(rate, 1000, 50), facts)}
        assert ("rate_too_high" in checked) == ("rate_too_high" in codes(**flags)) == warned


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets()])
def test_no_preset_is_warned_of(preset):
    assert codes(preset=preset) == []


def test_one_note_lists_the_defaults_that_differ_for_keys_that_the_file_lacks(write):
    (finding,) = findings(file=write(MLX_LM))
    assert finding.code == "defaults_differ"
    for part in (
        "mask_prompt true (mlx-lm: false)",
        "optimizer adamw (mlx-lm: adam)",
        "num_layers -1 (mlx-lm: 16)",
        "max_grad_norm 1 (mlx-lm: unset)",
        "bias_correction true (mlx-lm: false)",
        "val_batches -1 (mlx-lm: 25)",
        "adapter_path unset (mlx-lm: adapters)",
        "schedule linear (mlx-lm: constant)",
    ):
        assert part in finding.evidence
    assert "iters" not in finding.evidence and "test_batches" not in finding.evidence
    assert "--as-mlx-lm" in finding.fix


def test_test_batches_differ_only_where_there_is_a_test(write):
    (finding,) = findings(file=write(MLX_LM + "test: true\n"))
    assert "test_batches -1 (mlx-lm: 500)" in finding.evidence


def test_nothing_differs_with_mlx_lms_defaults(write):
    assert codes(file=write(MLX_LM), as_mlx_lm=True) == []
    assert codes(file=write(MLX_LM + "grad_accumulation_steps: 4\n"), as_mlx_lm=True) == []


def test_a_file_of_ours_is_not_compared_with_mlx_lm(write):
    assert codes(file=write(MLX_LM + "keep_last: 3\n")) == []
    assert codes(file=write("preset: laptop\nmodel: some/model\n")) == []


def test_a_converted_interval_is_named(write):
    text = MLX_LM + "keep_last: 3\nsteps_per_eval: 200\ngrad_accumulation_steps: 8\n"
    (finding,) = findings(file=write(text))
    assert finding.evidence == f"steps_per_eval is 25 updates: {write(text)}:7 (200 iterations)"


def test_an_adapter_that_the_run_would_replace_is_warned_of(tmp_path):
    assert codes(adapter_path=str(tmp_path)) == []
    (tmp_path / "notes.txt").write_text("mine")
    assert codes(adapter_path=str(tmp_path)) == []
    (tmp_path / "adapters.safetensors").write_text("one of ours")
    (finding,) = findings(adapter_path=str(tmp_path))
    assert (finding.code, finding.severity) == ("adapter_replaced", "warning")
    assert f"{tmp_path} holds adapters.safetensors already" in finding.evidence
