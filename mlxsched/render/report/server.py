"""A report that stays up to date, for a browser on this machine.

The address holds a token that cannot be guessed. Whatever does not have it gets 404, and so does a request whose ``Host``
is another name for this machine: a page from elsewhere could reach the server under such a name (DNS rebinding). Two
addresses are served, the page and its data; no file ever is.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from mlxsched.errors import MlxschedError
from mlxsched.render.report.figures import curves
from mlxsched.render.report.page import ReportedRun, report_html, runs_html, verdicts_html
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.json_file import finite
from mlxsched.runs.recording import read_recording

ADDRESS = "127.0.0.1"
WAITING = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    "<title>mlxsched</title></head><body><p>Waiting for the first update.</p></body></html>"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class LiveReport:
    """The report of an unfinished run; each request sees its current state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recording = read_recording(path)
        self._lock = threading.Lock()  # the server answers each request in a thread of its own

    def page(self) -> str:
        """The whole page."""
        with self._lock:
            run = self._read()
            return report_html([run], live=_version(run)) if run.updates else WAITING

    def data(self) -> str:
        """What changes on the page, as JSON."""
        with self._lock:
            run = self._read()
            state = {
                "version": _version(run),
                "running": run.info.status == "running",
                "runs": runs_html([run]),
                "verdicts": verdicts_html([run]),
                "sources": {
                    name: {"x": x.tolist(), "y": y.tolist()}
                    for name, (x, y) in curves(run.recording, 0).items()
                },
            }
        return json.dumps(finite(state), allow_nan=False)

    def _read(self) -> ReportedRun:
        run = RunDirectory.open(self._path)
        self._recording = self._recording.follow()
        if not len(self._recording.train):
            return ReportedRun(self._recording, run.info, [])
        return ReportedRun.of(run, self._recording)


def _version(run: ReportedRun) -> str:
    return f"{run.recording.position.offset} {run.info.status} {run.info.updated}"


class ReportServer(ThreadingHTTPServer):
    """Serves ``report`` on a port of this machine; 0 takes a free one. `url` is where."""

    daemon_threads = True

    def __init__(self, report: LiveReport, port: int = 0) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.report = report
        self.token = secrets.token_urlsafe(32)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print no traceback when a browser drops its connection, as closing a tab does."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version = "mlxsched", ""
    timeout = 10.0
    kinds: ClassVar[dict[str, str]] = {"": "text/html; charset=utf-8", "data": "application/json"}

    def do_GET(self) -> None:
        name = self._asked_for()
        if name is None:
            self._answer(404, "text/plain", "")
            return
        try:
            body = self.server.report.data() if name == "data" else self.server.report.page()
        except MlxschedError as error:  # the run was removed, or its files are being replaced
            self._answer(503, "text/plain; charset=utf-8", str(error))
            return
        except Exception as error:  # noqa: BLE001 a request without an answer shows nothing of what is wrong
            self._answer(500, "text/plain; charset=utf-8", f"{type(error).__name__}: {error}")
            return
        self._answer(200, self.kinds[name], body)

    def _asked_for(self) -> str | None:
        """The requested resource; None for a wrong token, another host or another path."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            return None
        for name in self.kinds:
            path = f"/{self.server.token}/{name}"
            if hmac.compare_digest(path.encode(), self.path.encode("utf-8", "replace")):
                return name
        return None

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        for key, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the address, with its token, must not appear in a log."""
