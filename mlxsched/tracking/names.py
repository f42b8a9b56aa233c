"""The names that ``--report-to`` takes."""

from __future__ import annotations

from importlib.util import find_spec

from mlxsched.errors import UsageError
from mlxsched.text import did_you_mean

TRACKERS = {  # name -> module that must be installed
    "tensorboard": "tensorboardX",
    "trackio": "trackio",
    "wandb": "wandb",
    "swanlab": "swanlab",
    "mlflow": "mlflow",
}
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


def check_names(report_to: str | None) -> list[str]:
    """The trackers in a comma-separated list, each once; none for an empty list or ``none``.

    Nothing is imported, so this is fast enough to run before the model is loaded.

    Raises:
        UsageError: a name is unknown, or its package is not installed.

    >>> check_names(None), check_names("none"), check_names(" ")
    ([], [], [])
    """
    given = [name.strip().lower() for name in (report_to or "").split(",")]
    names = [name for name in dict.fromkeys(given) if name and name != "none"]
    for name in names:
        if name not in TRACKERS:
            hint = did_you_mean(name, list(TRACKERS))
            raise UsageError(
                f"No such tracker: {name[:60]!r}.{hint} --report-to takes {', '.join(TRACKERS)}."
            )
        if find_spec(TRACKERS[name]) is None:
            package = _PACKAGES.get(name, name)
            raise UsageError(f"The tracker {name} is not installed. Install it: pip install {package}")
    return names
