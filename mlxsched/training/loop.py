"""The training loop: one update after the other, as planned, with nothing lost on the way."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxsched.data.batching.plan import padded_plan
from mlxsched.errors import DivergedError, Stopped
from mlxsched.model import adapters
from mlxsched.model.evaluate import Evaluator, perplexity
from mlxsched.model.fast.forward_path import PLAIN, ForwardPath
from mlxsched.model.generate import answer_all, exact_match
from mlxsched.model.trees import flatten, unflatten
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, Event, Notice, Sink, Tick, UpdateMade
from mlxsched.schedules.controllers import Controller
from mlxsched.text import counted
from mlxsched.training.acceleration import accelerate
from mlxsched.training.batch_loader import BatchLoader, UpdateRows
from mlxsched.training.checkpointer import Checkpointer
from mlxsched.training.optimizers import GroupedOptimizer, group_tensors
from mlxsched.training.progress import Progress
from mlxsched.training.session import Session
from mlxsched.training.step import UpdateStep


class Trainer:
    """Trains ``session`` into ``run``, whose lock the caller holds.

    ``emit`` is told of everything. ``stop_signal`` is asked between updates whether a signal has come (0: no), and
    ``between_updates`` is called there with a function that writes a checkpoint.
    """

    def __init__(
        self,
        session: Session,
        run: RunDirectory,
        emit: Sink,
        *,
        stop_signal: Callable[[], int] = lambda: 0,
        between_updates: Callable[[Callable[[], None]], list[Event]] = lambda save: [],
    ) -> None:
        self.session, self.run = session, run
        self.progress = Progress()
        self._unrecorded: list[str] = []
        self._emit, self._stop_signal, self._between_updates = emit, stop_signal, between_updates
        self._model = session.loaded.model
        trainable = flatten(self._model.trainable_parameters())
        self._optimizer = _make_optimizer(session, trainable)
        paths = accelerate(session, run.path, self._note)
        self.short_cuts = paths.describe()
        self._step = _make_step(session, self._optimizer, paths.training)
        self._feed = _make_feed(session, paths.training)
        self._evaluator = _make_evaluator(session, paths.validation)
        self._keeper = Checkpointer(run, self._optimizer, session.adapter_config, session.config.keep_last)
        # Plateau and greedy are values; what they have observed lives here and in `progress`.
        self._live = session.schedule.live() if isinstance(session.schedule, Controller) else None
        self._packed = self._optimizer.pack(trainable)
        self._state = self._optimizer.init(self._packed)
        self._prepared: tuple[int, UpdateRows] | None = None

    # The run as a whole

    def train(self) -> Progress:
        """Go on from where the progress is to the end of the plan, or to the first reason to stop.

        Raises ``Stopped`` after a signal and ``DivergedError`` when the numbers went wrong; either way the last
        good adapter and a checkpoint are on disk.
        """
        self._model.train()
        self._record_notes()
        while True:
            self._evaluate_if_due()
            self._measure_before()
            self._save_if_due()
            self._stop_if_asked()
            if self._done:
                break
            self._one_update()
        self._finish()
        return self.progress

    def resume(self) -> None:
        """Put the state of the last good checkpoint in place (the beginning, if there is none)."""
        restored = self._keeper.restore(self._packed, self._state, self._note)
        if restored is not None:
            self._packed, self._state, self.progress = restored
            self._restore_schedule()
        self._record_notes()

    @property
    def _done(self) -> bool:
        return self.progress.update >= self.session.plan.updates or self.progress.ended is not None

    def _measure_before(self) -> None:
        """Measure the model as it comes, so that the end can say what the training was good for."""
        results = self.progress.results
        if self.progress.update == 0 and "before" not in results:
            self._step.load(self._packed)
            results["before"] = self._measure(self.progress.best_loss)
            if self._evaluator is None:
                self._keeper.write_adapter(self._packed)

    def _finish(self) -> None:
        """Leave the best adapter, and the last one where that is another, and measure the one to use."""
        progress = self.progress
        if self._evaluator is None:
            self._keeper.write_adapter(self._packed)
        elif progress.best_update != progress.update:
            self._keeper.write_adapter(self._packed, final=True)
        if "after" not in progress.results:
            adapters.load_weights(self._model, self.run.adapters)
            progress.results["after"] = self._measure(progress.best_loss)
            self._save()
        if self.session.config.adapter_path:
            self._keeper.copy_adapter(Path(self.session.config.adapter_path).expanduser())
        self.run.update_info(status="finished", update=progress.update, message=progress.ended or "")

    # One update

    def _one_update(self) -> None:
        """Make one update; the next one's batches are laid out while the device works."""
        started = time.perf_counter()
        update = self.progress.update
        rows = self._rows_of(update)
        rate = self._rate(update)
        outcome = self._dispatch(rows, rate)
        if update + 1 < self.session.plan.updates:
            self._prepared = (update + 1, self._feed(update + 1))
        loss, norm, applied = float(outcome[0]), float(outcome[1]), bool(outcome[2])
        seconds = time.perf_counter() - started
        self.progress.update += 1
        self._account(update, rows, seconds)
        spike = applied and self.progress.see_loss(loss)
        self._report(self._made(update, rows, rate, loss, norm, applied, seconds))
        if spike:
            text = f"loss {loss:.4g}, far above its running mean of {self.progress.smoothed:.4g}"
            self._report(Notice(update, "spike", text))
        self._judge(update, rows, loss, norm, applied)

    def _rows_of(self, update: int) -> UpdateRows:
        if self._prepared and self._prepared[0] == update:
            return self._prepared[1]
        return self._feed(update)

    def _dispatch(self, rows: UpdateRows, rate: float) -> tuple[mx.array, mx.array, mx.array]:
        if self.session.config.lora_parameters.dropout > 0:
            # Dropout draws as a function of seed and update: nothing random has to be saved.
            mx.random.seed((self.session.config.seed << 32) + self.progress.update)
        sums = self._step.zeros(self._packed)
        for arrays in rows.arrays:
            sums = self._step.add(self._packed, sums, *arrays)
            mx.async_eval(sums)
        self._packed, self._state, outcome = self._step.apply(self._packed, self._state, sums, rate)
        mx.async_eval(self._packed, self._state, outcome)
        return outcome

    def _account(self, update: int, rows: UpdateRows, seconds: float) -> None:
        config, progress = self.session.config, self.progress
        progress.tokens += rows.n_tokens
        progress.targets += rows.n_targets
        progress.seconds += seconds
        if config.max_time and progress.seconds >= config.max_time and not self._done:
            progress.ended = (
                f"--max-time of {config.max_time:g} s was up after {counted(update + 1, 'update')}"
            )
        if config.clear_cache_threshold and mx.get_cache_memory() > config.clear_cache_threshold:
            mx.clear_cache()

    def _made(
        self,
        update: int,
        rows: UpdateRows,
        rate: float,
        loss: float,
        norm: float,
        applied: bool,
        seconds: float,
    ) -> UpdateMade:
        smoothed = self.progress.smoothed
        return UpdateMade(
            update=update,
            loss=loss,
            lr=rate,
            grad_norm=norm,
            tokens=rows.n_tokens,
            targets=rows.n_targets,
            tokens_per_second=rows.n_tokens / seconds,
            peak_memory_gb=mx.get_peak_memory() / 1e9,
            seconds=seconds,
            smoothed=math.nan if smoothed is None else smoothed,
            applied=applied,
        )

    # Numbers that go wrong

    def _judge(self, update: int, rows: UpdateRows, loss: float, norm: float, applied: bool) -> None:
        progress = self.progress
        progress.bad_in_a_row = 0 if applied else progress.bad_in_a_row + 1
        if applied:
            return
        progress.bad_updates += 1
        shown = ", ".join(str(int(index) + 1) for index in rows.indices[:8])
        more = ", ..." if len(rows.indices) > 8 else ""
        text = f"loss {loss}, gradient norm {norm}: update not applied; training rows {shown}{more}"
        self._report(Notice(update, "non_finite", text))
        if progress.bad_in_a_row >= self.session.config.max_bad_updates:
            self._diverged(update)

    def _diverged(self, update: int) -> None:
        """Go back to the last checkpoint at half the rate, once; else give up."""
        count, config = self.progress.bad_in_a_row, self.session.config
        if config.on_divergence != "halve" or self.progress.peak_factor < 1:
            raise DivergedError(
                f"{counted(count, 'update')} in a row had a loss or gradient that is not finite; the last was update "
                f"{update} at a rate of {self._rate(update):.3g}. None of them was applied, and "
                f"{self.run.adapters} holds the last good adapter. Lower --learning-rate, lengthen --warmup, or let "
                "the run help itself with --on-divergence halve; `mlxsched data check` looks for bad rows."
            )
        self.resume()
        self.progress.peak_factor = 0.5
        self.progress.bad_in_a_row = 0
        self.progress.bad_updates += count
        bad = counted(count, "non-finite update")
        text = f"{bad} up to update {update}: back to update {self.progress.update}, rate halved"
        self._report(Notice(self.progress.update, "rollback", text))
        self._save()

    # Evaluation

    def _evaluate_if_due(self) -> None:
        update = self.progress.update
        due = update % self.session.plan.steps_per_eval == 0 or self._done
        if self._evaluator is None or not due or self.progress.evaluated_update == update:
            return
        started = time.perf_counter()
        result = self._evaluator(self._tree(), self._doing("validation"))
        best = self.progress.see_evaluation(result.loss)
        if best:
            self._keeper.write_adapter(self._packed)
        self._observe(result.loss)
        seconds = time.perf_counter() - started
        self._report(Evaluated(update, result.loss, result.perplexity, best, seconds))
        self._end_if_patience_is_out()

    def _end_if_patience_is_out(self) -> None:
        patience, since = self.session.config.patience, self.progress.evaluations_since_best
        if patience and since >= patience and not self._done:
            self.progress.ended = f"no better validation loss in {counted(since, 'evaluation')}"

    def _rate(self, update: int) -> float:
        schedule = self._live or self.session.schedule
        return float(schedule(update)) * self.progress.peak_factor

    def _observe(self, loss: float) -> None:
        """Adaptive schedules (plateau, greedy) follow the validation loss."""
        if self._live is not None and self.progress.update > 0:
            self._live.observe(loss)
            self.progress.schedule_state = self._live.state_dict()

    def _restore_schedule(self) -> None:
        """Bring the adaptive schedule to the state of the progress; without one, to its initial state."""
        if self._live is not None and self.progress.schedule_state is not None:
            self._live.load_state_dict(self.progress.schedule_state)
        elif self._live is not None:
            self._live.reset()

    def _measure(self, loss: float | None) -> dict[str, Any]:
        """Validation loss, perplexity and, where test rows have answers, the share that the module gets exactly."""
        measured: dict[str, Any] = {"update": self.progress.update}
        if loss is not None:
            measured |= {"loss": loss, "perplexity": perplexity(loss)}
        config, test = self.session.config, self.session.dataset.test
        examples = test.examples() if test is not None and config.test else None
        if examples:
            asked = (
                examples if config.test_batches < 0 else examples[: config.test_batches * config.batch_size]
            )
            tokenizer, tell = self.session.loaded.tokenizer, self._doing("test answers")
            limit = self.session.micro_batch_tokens // 2  # MLX takes room for 256 more tokens of each answer
            answers = answer_all(self._model, tokenizer, asked, tell, max_tokens=limit)
            measured |= {"exact_match": exact_match(answers), "asked": len(answers)}
        return measured

    def _tree(self) -> Any:
        return unflatten(self._optimizer.unpack(self._packed))

    # Stopping and saving

    def _save_if_due(self) -> None:
        config, update = self.session.config, self.progress.update
        minutes = config.save_minutes is not None and self._keeper.minutes_since_save >= config.save_minutes
        if (update % config.save_every == 0 or minutes or self._done) and not self._keeper.is_saved(update):
            self._save()
        for event in self._between_updates(self._save):
            self._report(event)

    def _save(self) -> None:
        if self._evaluator is None:
            self._keeper.write_adapter(self._packed)
        self._keeper.save(self._packed, self._state, self.progress)

    def _stop_if_asked(self) -> None:
        number = self._stop_signal()
        if not number:
            return
        if not self._keeper.is_saved(self.progress.update):
            self._save()
        self.run.update_info(status="stopped", message=f"stopped by signal {number}")
        planned = counted(self.session.plan.updates, "update")
        raise Stopped(
            f"Stopped after {self.progress.update} of {planned}; everything is saved. "
            f"Go on with: mlxsched resume {self.run.path}{self._given_anew()}",
            number,
        )

    def _given_anew(self) -> str:
        """The flags that a resume needs again, since they are never read from a run's files."""
        path = self.session.config.adapter_path
        trusted = " --trust-remote-code" if self.session.config.trust_remote_code else ""
        return (f" --adapter-path {shlex.quote(path)}" if path else "") + trusted

    # Telling

    def _report(self, event: Event) -> None:
        self.run.metrics.record(event)
        self._emit(event)

    def _note(self, text: str) -> None:
        self._emit(Notice(self.progress.update, "note", text))
        self._unrecorded.append(text)  # a resume has yet to cut the records back

    def _record_notes(self) -> None:
        """Write the notes that the run has not had yet: one that goes on as it began has no more than at first."""
        if not self._unrecorded:
            return
        known = {record.get("message") for record in self.run.read_metrics() if record.get("code") == "note"}
        for text in dict.fromkeys(self._unrecorded):
            if text not in known:
                self.run.metrics.record(Notice(self.progress.update, "note", text))
        self._unrecorded.clear()

    def _doing(self, what: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            self._emit(Tick(self.progress.update, what, done, total))
            self._stop_if_asked()

        return tell


def _make_optimizer(session: Session, trainable: dict[str, mx.array]) -> GroupedOptimizer:
    config = session.config
    return group_tensors(
        trainable,
        config.optimizer,
        config.optimizer_arguments,
        bias_correction=config.bias_correction,
        lora_plus_ratio=config.lora_plus_ratio,
    )


def _make_step(session: Session, optimizer: GroupedOptimizer, path: ForwardPath) -> UpdateStep:
    config = session.config
    return UpdateStep(
        session.loaded.model,
        optimizer,
        path.loss,
        compiled=path.compiled,
        max_grad_norm=config.max_grad_norm,
        random=config.lora_parameters.dropout > 0,
    )


def _make_feed(session: Session, path: ForwardPath = PLAIN) -> BatchLoader:
    cut, plan = session.cut, session.plan
    if cut.packing is not None and path.packing is None:
        cut = padded_plan(session.order, cut.max_tokens)
    last = plan.updates - 1
    return BatchLoader(session.train_rows, session.order, cut, path, last=last, last_rows=plan.last_rows)


def _make_evaluator(session: Session, path: ForwardPath) -> Evaluator | None:
    valid, config = session.dataset.valid, session.config
    if valid is None or config.val_batches == 0:
        return None
    limit = None if config.val_batches < 0 else config.val_batches * config.batch_size
    return Evaluator(session.loaded.model, valid, path, max_tokens=session.micro_batch_tokens, limit=limit)
