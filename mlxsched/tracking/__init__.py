"""Experiment trackers as sinks of a run's events: ``--report-to tensorboard,trackio,wandb,swanlab,mlflow``.

Metrics are named as transformers names them (``train/loss``, ``train/learning_rate``, ``eval/loss``), with the number
of updates as the step. A tracker is imported and opened at the first event. One that fails raises there, and
`mlxsched.runs.sinks.Sinks` drops it, reports it once, and the run goes on.
"""

from __future__ import annotations

from mlxsched.tracking.names import TRACKERS, check_names
from mlxsched.tracking.sink import TrackerSink, sinks

__all__ = ["TRACKERS", "TrackerSink", "check_names", "sinks"]
