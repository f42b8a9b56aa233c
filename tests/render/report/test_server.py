"""The live page: served to whoever has its token, and to nobody else; it follows the run."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import struct
import subprocess
import threading

import pytest

from mlxsched.render.report.server import LiveReport, ReportServer
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def record(run, first, last):
    for update in range(first, last):
        run.metrics.record(UpdateMade(update, 2.0 / (1 + update), 1e-4, grad_norm=1.0, seconds=0.1))
    run.metrics.record(Evaluated(last, 0.5))


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(
        tmp_path / "one",
        config={"data": "</script><img src=x>"},
        origins={},
        plan={"updates": 60},
        versions={},
    )
    with made.lock():
        yield made


@pytest.fixture
def server(run):
    with ReportServer(LiveReport(run.path)) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()


def get(server, path, method="GET", **headers):
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_only_the_token_opens_anything(server, run):
    record(run, 0, 3)
    token = server.token
    assert len(token) >= 43 and server.server_address[0] == "127.0.0.1"  # 32 random bytes
    wrong = [
        "/",
        "/data",
        f"/{token}",
        f"/{token}x/",
        f"/{token[:-1]}/",
        f"/{token}/../",
        f"/{token}/run.json",
    ]
    for path in (*wrong, f"/{token}/%2e%2e/", f"/{token}/data?x", f"/{'x' * len(token)}/data"):
        status, _, body = get(server, path)
        assert (status, body) == (404, ""), path
    assert get(server, f"/{token}/data", "POST")[0] == 501


def test_another_host_name_for_this_machine_gets_nothing(server, run):
    record(run, 0, 3)
    path = f"/{server.token}/data"
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
        assert get(server, path, Host=host)[0] == 404, host
    assert get(server, path, Host=f"localhost:{server.server_port}")[0] == 200


def test_the_page_may_only_ask_its_own_server(server, run):
    assert "Waiting for the first update" in get(server, f"/{server.token}/")[2]
    record(run, 0, 3)
    status, headers, page = get(server, f"/{server.token}/")
    assert status == 200 and "default-src 'none'" in page and "connect-src 'self'" in page
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert server.token not in page


def test_the_data_follows_the_run(server, run):
    record(run, 0, 3)
    first = json.loads(get(server, f"/{server.token}/data")[2])
    record(run, 3, 5)
    second = json.loads(get(server, f"/{server.token}/data")[2])
    assert first["version"] != second["version"]
    assert second["sources"]["0/lr"]["x"] == [0, 1, 2, 3, 4]
    assert second["sources"]["0/validation"]["x"] == [3, 5]
    assert second["running"] and "5 updates" in second["verdicts"] and "<img" not in second["verdicts"]
    run.update_info(status="finished", update=5)
    assert not json.loads(get(server, f"/{server.token}/data")[2])["running"]


def test_a_browser_that_drops_the_connection_leaves_no_traceback(server, capfd):
    closed, over = threading.Event(), threading.Event()
    server.report.page = lambda: (closed.wait(30), "x" * 10_000_000)[1]
    shut = server.shutdown_request
    server.shutdown_request = lambda request: (shut(request), over.set())
    browser = socket.create_connection(server.server_address)
    browser.sendall(f"GET /{server.token}/ HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode())
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    browser.close()
    closed.set()
    assert over.wait(30)
    assert capfd.readouterr().err == ""


def test_an_unexpected_error_is_an_answer(server, capfd):
    server.report.page = lambda: 1 / 0
    status, _, body = get(server, f"/{server.token}/")
    assert status == 500 and body.startswith("ZeroDivisionError")
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_what_was_recorded_after_it_opened_the_page(server, run, tmp_path):
    record(run, 0, 30)
    page, told = server.report.page, threading.Event()
    server.report.page = lambda: (page(), told.set())[0]

    def go_on():
        told.wait(60)
        record(run, 30, 47)
        run.update_info(status="running", update=47, message="grown")

    writer = threading.Thread(target=go_on)
    writer.start()
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--virtual-time-budget=9000", "--dump-dom", server.url]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    writer.join()
    assert "47 updates" in dom and "grown" in dom
    assert re.search('id="lost" hidden', dom)
    assert "<img" not in re.sub("<script.*?</script>", "", dom, flags=re.S)
