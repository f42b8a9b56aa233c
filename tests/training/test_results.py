"""What run.json keeps of the answers before and after the training."""

from __future__ import annotations

import json

from mlxsched.data.rows import Example
from mlxsched.model.generate import Answer
from mlxsched.training.results import LONGEST_SAMPLE, SAMPLES, samples


class Tokenizer:
    """Decodes a prompt of one token to a text."""

    all_special_ids = ()

    def decode(self, tokens, skip_special_tokens):
        return f"start{'.' * LONGEST_SAMPLE}{tokens[0]}" if skip_special_tokens else "<|user|>"


def test_a_few_evenly_spaced_answers_of_bounded_length_are_kept():
    examples = [Example([number], "x" * 10_000) for number in range(100)]
    answers = [Answer(example.answer, f"{number}!") for number, example in enumerate(examples)]
    kept = samples(Tokenizer(), examples, answers)
    assert len(kept) == SAMPLES
    assert [one["answer"] for one in kept] == [f"{number}!" for number in range(0, 96, 12)]
    assert kept[1]["prompt"].endswith(".12")  # the end of a long prompt is the question
    assert len(json.dumps(kept)) < 3.5 * SAMPLES * LONGEST_SAMPLE
    assert samples(Tokenizer(), examples[:3], answers[:3])[-1]["answer"] == "2!"


def test_a_long_prompt_begins_at_a_word():
    class Words:
        all_special_ids = ()

        def decode(self, tokens, skip_special_tokens):
            return "word " * LONGEST_SAMPLE + "x" * tokens[0]

    for length in (1, 2, 3, 4, 5):
        (kept,) = samples(Words(), [Example([length], "y")], [Answer("y", "y")])
        assert kept["prompt"].startswith("word word") and kept["prompt"].endswith(" " + "x" * length)


def test_parts_of_a_prompt_that_special_tokens_separate_are_on_lines_of_their_own():
    class Chat:
        all_special_ids = (0, 1)

        def decode(self, tokens, skip_special_tokens):
            return "".join("" if token < 2 else f" w{token}" for token in tokens)

    (kept,) = samples(Chat(), [Example([0, 2, 3, 1, 0, 4, 1], "y")], [Answer("y", "y")])
    assert kept["prompt"] == "w2 w3\nw4"


def test_a_run_with_test_rows_keeps_the_same_prompts_before_and_after(train):
    run, progress, _ = train(iters=1, test=True, test_batches=1, val_batches=1, batch_size=2)
    before, after = (run.info.results[when]["answers"] for when in ("before", "after"))
    assert len(before) == len(after) == 2
    assert [one["prompt"] for one in before] == [one["prompt"] for one in after]
    assert before[0]["expected"].startswith("=") and "<" not in before[0]["prompt"]
    assert progress.results["after"]["asked"] == 2
    tokens = run.info.results["before"]["tokens"]
    assert tokens["prompts"] > tokens["expected"] > 2 and tokens["answers"] > 2
