"""The flags of a run: mlx-lm's names, only what was set is given, help under headings."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from mlxsched.cli.options import GROUPS, GroupedCommand, given_flags, run_options
from mlxsched.config import RunConfig

MLX_LM_FLAGS = (
    "--model --data --fine-tune-type --optimizer --mask-prompt --num-layers --batch-size --iters --val-batches "
    "--learning-rate --steps-per-report --steps-per-eval --grad-accumulation-steps --resume-adapter-file "
    "--adapter-path --save-every --test --test-batches --max-seq-length -c --config --grad-checkpoint "
    "--clear-cache-threshold --report-to --project-name --seed --trust-remote-code --train"
)
OUR_FLAGS = "--preset --schedule --warmup --end-lr --epochs --max-time --run-dir --name"


@pytest.fixture
def given():
    """Run a command with the flags of a run, and return what it was given."""

    def run(*arguments: str) -> dict[str, object]:
        seen: dict[str, object] = {}

        @click.command(cls=GroupedCommand)
        @run_options
        @click.pass_context
        def command(ctx: click.Context, **_: object) -> None:
            seen.update(given_flags(ctx))

        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return seen | {"output": result.output}

    return run


def test_every_flag_of_mlx_lm_and_of_ours_is_there():
    @click.command(cls=GroupedCommand)
    @run_options
    def command(**_: object) -> None: ...

    flags = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    assert {*MLX_LM_FLAGS.split(), *OUR_FLAGS.split()} <= flags
    assert {
        "--no-mask-prompt",
        "--no-fast",
        "--rank",
        "--scale",
        "--lora-plus-ratio",
        "--max-grad-norm",
    } <= flags


def test_only_what_was_set_is_given(given):
    seen = given("--iters", "10", "--rank", "8", "--no-fast", "--train", "--warmup", "0.1")
    del seen["output"]
    assert seen == {
        "iters": "10",
        "train": True,
        "lora_parameters.rank": "8",
        "fast": False,
        "warmup": "0.1",
    }


def test_help_stands_under_headings_and_hides_train(given):
    output = given("--help")["output"]
    for heading in ("Start from", *GROUPS, "Options"):
        assert f"\n{heading}:\n" in output
    assert "--train" not in output.replace("--trust", "")


def test_every_key_of_the_config_has_a_flag_or_a_reason_not_to():
    keys = {key.partition(".")[0] for group in GROUPS.values() for key in group.split()}
    only_in_files = {"description", "hf_dataset", "train", "lr_schedule", "optimizer_config"}
    assert keys | only_in_files == set(RunConfig.model_fields)


@pytest.fixture
def refused():
    """Run a command with a flag that does not exist, and return the message."""

    @click.command(cls=GroupedCommand)
    @run_options
    def command(**_: object) -> None: ...

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2
        return result.output

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lr", "1e-4"], "Write `--learning-rate 1e-4`"),
        (["--max_steps", "100", "--grad-accumulation-steps", "4"], "Write `--steps 100`"),
        (["--max-steps=100"], "Write `--steps 100`"),
        (["-preset", "laptop"], "No such option: -preset. Did you mean '--preset'?"),
        (["-lr=1e-4"], "No such option: -lr. That is"),
        (["--lora-layers", "8"], "Write `--num-layers 8`"),
        (["--lora-alpha", "32", "--rank", "16"], "Write `--scale 2.0`"),
        (["--lr_scheduler_type", "cosine"], "Write `--schedule cosine`"),
        (["--logging_steps", "5"], "Write `--steps-per-report 5`"),
        (["--batch_size", "4"], "Did you mean '--batch-size'?"),
        (["--lerning-rate", "4"], "Did you mean '--learning-rate'?"),
        (["--bf16"], "The model's weights decide the precision"),
        (["--xyzzy"], "No such option: --xyzzy."),
    ],
)
def test_a_flag_of_another_tool_is_answered_with_ours(refused, arguments, expected):
    assert expected in " ".join(refused(*arguments).split())


def test_weight_decay_is_a_flag(given):
    assert given("--weight-decay", "0.1")["weight_decay"] == "0.1"


def test_a_schedule_that_does_not_fit_a_known_length_is_refused_without_a_model(monkeypatch, capsys):
    from mlxsched.cli.main import main

    arguments = ["plan", "--iters", "100", "--schedule", "wsd(decay=200)", "--model", "no/such-model"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "200" in told and "Loading" not in told


def test_a_command_without_any_argument_is_parsed():
    from mlxsched.cli.plan import command

    assert command.make_context("plan", []).params["preset"] is None


def test_help_names_the_kind_of_each_value(given):
    output = " ".join(given("--help")["output"].split())
    for shown in (
        "--iters N",
        "--patience N",
        "--epochs X",
        "--memory SIZE",
        "--max-time TIME",
        "--name TEXT",
    ):
        assert shown in output
