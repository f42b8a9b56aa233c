"""TensorBoard event files, in ``tensorboard/`` of the run directory, written by tensorboardX."""

from __future__ import annotations

from collections.abc import Mapping

from tensorboardX import SummaryWriter

from mlxsched.tracking.tracker import Opening


class TensorBoard:
    """A directory of event files."""

    def __init__(self, opening: Opening) -> None:
        self.run_id = "tensorboard"
        # TensorBoard drops what earlier files hold from purge_step on: updates that a resume repeats.
        purge = opening.update + 1 if opening.run_id else None
        self._writer = SummaryWriter(str(opening.directory / self.run_id), purge_step=purge)
        if opening.run_id is None:
            text = "\n".join(f"    {key}: {value}" for key, value in opening.config.items())
            self._writer.add_text("config", text, 0)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars, and flush: TensorBoard reads the file while the run goes on."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def alert(self, code: str, message: str, step: int) -> None:
        """Write a text."""
        self._writer.add_text(f"alerts/{code}", message, step)

    def finish(self, *, failed: bool) -> None:
        """Close the file."""
        self._writer.close()


open_run = TensorBoard
