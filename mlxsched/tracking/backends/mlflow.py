"""MLflow, at ``MLFLOW_TRACKING_URI`` or where MLflow keeps its runs by default."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

# A run must not wait for a server that is down: MLflow's own 7 retries of 120 s each take over a quarter of an hour.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from mlflow import MlflowClient  # after the lines above: it reads the environment
from mlflow.entities import Metric, Param

from mlxsched.tracking.tracker import Opening

_LONGEST = 500  # characters of a parameter


class MLflow:
    """A run of MLflow, in the experiment named as the project."""

    def __init__(self, opening: Opening) -> None:
        self._client = MlflowClient()
        if opening.run_id:
            self.run_id = opening.run_id
            self._client.update_run(self.run_id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(opening.project)
        place = experiment.experiment_id if experiment else self._client.create_experiment(opening.project)
        self.run_id = self._client.create_run(place, run_name=opening.name).info.run_id
        parameters = [Param(key, str(value)[:_LONGEST]) for key, value in opening.config.items()]
        self._client.log_batch(self.run_id, params=parameters)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics in one request."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            self.run_id, [Metric(name, value, now, step) for name, value in metrics.items()]
        )

    def alert(self, code: str, message: str, step: int) -> None:
        """Set a tag: MLflow has no alerts."""
        self._client.set_tag(self.run_id, f"alert.{code}", f"update {step}: {message}"[:_LONGEST])

    def finish(self, *, failed: bool) -> None:
        """Close the run."""
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


open_run = MLflow
