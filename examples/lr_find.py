"""Find the peak learning rate of a run from Python, and train with it.

    python examples/lr_find.py

The same as `mlxsched lr-find`, without its store: a search never writes anything, so it can run anywhere.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from mlxsched.config import load_config
from mlxsched.experiments.rate_finder import Budget, Found, Search
from mlxsched.training.run import create_run, execute
from mlxsched.training.session import Session, prepare

SETTINGS = {"iters": 60, "batch_size": 4, "test": False}


def plan(**flags: object) -> Session:
    """A run of the bundled model on the bundled data; give `model="..."` and `data="..."` for yours."""
    settings = load_config(preset="lora", flags={**SETTINGS, **flags})
    return prepare(settings.config, settings.origins)


def main(directory: Path, budget: int = 60, **flags: object) -> tuple[Found, float]:
    """Search with a budget of so many updates, train at the suggestion, and return the result and the validation loss."""
    search = Search(plan(**flags), Budget(budget))
    print(f"The prior is {search.prior.peak:.1e}; the search takes about {search.layout.cost:.0f} updates.")
    found = search.run()
    for one in found.candidates:
        print(f"{one.updates:3d} updates at {one.peak:.1e}: held-out loss {one.loss:.3f}")
    if found.suggestion is None:
        raise SystemExit(f"No suggestion: {found.reason}.")
    print(f"Suggestion {found.suggestion:.1e}, between {found.low:.1e} and {found.high:.1e}")
    session = plan(**flags, learning_rate=found.suggestion)
    progress = execute(session, create_run(session, directory / "run"), lambda event: None)
    return found, progress.best_loss


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        print(f"Validation loss {main(Path(place))[1]:.3f}")
