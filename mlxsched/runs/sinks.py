"""Sending the events of a run to several sinks, of which only one may end it."""

from __future__ import annotations

from mlxsched.runs.events import Event, Notice, Sink


class Sinks:
    """Sends each event to `recorder`, then to every sink; it is a sink itself.

    `recorder` writes ``metrics.jsonl``: its errors are raised, since a run that can't be recorded must stop. Another
    sink that raises is dropped, and one `Notice` with the code ``sink_failed`` reports it to those that remain. So a
    tracker whose server is down, or a terminal that went away, never ends a run.
    """

    def __init__(self, recorder: Sink, *sinks: Sink) -> None:
        self._recorder = recorder
        self._sinks = list(sinks)

    def __call__(self, event: Event) -> None:
        self._recorder(event)
        self.show(event)

    def show(self, event: Event) -> None:
        """Send `event` to the sinks without recording it."""
        failed = [notice for sink in list(self._sinks) if (notice := self._send(event, sink)) is not None]
        for notice in failed:
            self(notice)

    def _send(self, event: Event, sink: Sink) -> Notice | None:
        try:
            sink(event)
        except Exception as error:  # noqa: BLE001 - whatever a sink raises is about the sink, not the run
            self._sinks.remove(sink)
            name = getattr(sink, "name", None) or getattr(sink, "__name__", type(sink).__name__)
            reason = f"{type(error).__name__}: {error}"[:200]
            return Notice(
                event.update,
                "sink_failed",
                f"{name} failed and receives no more events; the run continues. {reason}",
            )
        return None
