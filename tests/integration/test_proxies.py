"""The example proxies take what people and providers send to the API, and write down nothing secret."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from notifier.dev.machine import free_port, is_free
from tests.provisioning.install import apt_install, can_apt_install
from tests.waiting import patient, wait_until

EXAMPLES = Path(__file__).parents[2] / "deploy" / "proxy"
TOKEN = "a-secret-token"


class Api(ThreadingHTTPServer):
    """Stands for the API: it notes what reaches it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.seen: list[tuple[str, str | None, str | None]] = []


class _Request(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        if self.path != "/readyz":
            told = self.headers
            self.server.seen.append((self.path, told["X-Forwarded-Proto"], told["X-Forwarded-For"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def program(name: str, package: str) -> str:
    """Skips where it is missing and cannot be installed."""
    path = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"
    if shutil.which(name, path=path) is None and can_apt_install():
        apt_install(package)
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"needs {name}: run `sudo apt-get install {package}`")
    return found


def _certificate(folder: Path) -> None:
    key, certificate = folder / "notify.example.com.key", folder / "notify.example.com.pem"
    names = ["-subj", "/CN=localhost", "-days", "2", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *names]
    subprocess.run(command, check=True, capture_output=True)
    # haproxy reads both from one file, and nginx the first of them.
    certificate.write_text(certificate.read_text() + key.read_text())


def _settings(name: str, folder: Path, api_port: int, ports: tuple[int, int]) -> str:
    """The example, with the places of this test in place of those of a server."""
    text = (EXAMPLES / name).read_text("utf-8")
    changes = {
        "10.0.0.11:8080": f"127.0.0.1:{api_port}",
        "10.0.0.12:8080": f"127.0.0.1:{api_port}",
        "/etc/ssl/": f"{folder}/",
        "/etc/haproxy/": f"{folder}/",
        "/var/log/nginx/": f"{folder}/",
        "listen 80;": f"listen 127.0.0.1:{ports[0]};",
        "listen 443 ": f"listen 127.0.0.1:{ports[1]} ",
        "bind :80\n": f"bind 127.0.0.1:{ports[0]}\n",
        "bind :443 ": f"bind 127.0.0.1:{ports[1]} ",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder: Path, api_port: int, ports: tuple[int, int]) -> Iterator[Path]:
    server = program("nginx", "nginx-light")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = folder / "whole.conf"
    site = _settings("nginx.conf", folder, api_port, ports)
    whole.write_text(f"daemon off; pid {folder}/pid; events {{}} http {{ {places}\n{site}\n}}")
    checked = subprocess.run(
        [server, "-t", "-q", "-e", "stderr", "-c", str(whole)], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    with subprocess.Popen([server, "-e", "stderr", "-c", str(whole)], stderr=subprocess.DEVNULL) as process:
        try:
            yield folder / "notifier.log"
        finally:
            process.terminate()


@contextmanager
def haproxy(folder: Path, api_port: int, ports: tuple[int, int]) -> Iterator[Path]:
    server = program("haproxy", "haproxy")
    whole = folder / "haproxy.cfg"
    whole.write_text(_settings("haproxy.cfg", folder, api_port, ports))
    checked = subprocess.run([server, "-c", "-q", "-dW", "-f", str(whole)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    log = folder / "notifier.log"
    with log.open("wb") as out, subprocess.Popen([server, "-db", "-f", str(whole)], stdout=out) as process:
        try:
            yield log
        finally:
            process.terminate()


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_a_body_that_does_not_come_holds_no_connection_to_the_api(proxy: object, api: Api, tmp_path: Path) -> None:
    _certificate(tmp_path)
    ports = (free_port(), free_port())
    trusting = ssl._create_unverified_context()

    def opened() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", ports[1]), timeout=patient(10))
        return trusting.wrap_socket(plain)

    def paths() -> list[str]:
        return [path for path, _, _ in api.seen]

    with proxy(tmp_path, api.server_port, ports):  # type: ignore[operator]
        wait_until(lambda: not is_free(ports[1]), timeout=10)
        with opened() as slow, opened() as quick:
            slow.sendall(b"POST /webhooks/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
            quick.sendall(b"POST /webhooks/quick HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
            wait_until(paths, timeout=10)
            assert paths() == ["/webhooks/quick"]
            slow.sendall(b"b")
            wait_until(lambda: "/webhooks/slow" in paths(), timeout=10)


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_what_is_for_people_and_providers_goes_through_and_no_secret_is_logged(
    proxy: object, api: Api, tmp_path: Path
) -> None:
    _certificate(tmp_path)
    ports = (free_port(), free_port())
    trusting = ssl._create_unverified_context()

    def status(path: str) -> int:
        request = urllib.request.Request(
            f"https://127.0.0.1:{ports[1]}{path}", headers={"X-Forwarded-For": "8.8.8.8"}
        )
        try:
            with urllib.request.urlopen(request, context=trusting, timeout=patient(10)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with proxy(tmp_path, api.server_port, ports) as log:  # type: ignore[operator]
        wait_until(lambda: not is_free(ports[1]), timeout=10)
        passed = ["/v1/notifications?recipient=ann@example.com", "/webhooks/twilio", f"/u/{TOKEN}"]
        wait_until(lambda: status(passed[0]) == 200, timeout=10)
        assert [status(path) for path in passed] == [200, 200, 200]
        # This address is not the console's.
        assert [status(path) for path in ("/healthz", "/readyz", "/metrics", "/")] == [404, 404, 404, 403]
        wait_until(lambda: "/u/..." in log.read_text(), timeout=10)
    assert {path for path, _, _ in api.seen} == set(passed)
    assert {(scheme, address or None) for _, scheme, address in api.seen} == {("https", None)}
    written = "".join(path.read_text() for path in (log, tmp_path / "notifier.error.log") if path.exists())
    assert TOKEN not in written
    assert "ann@example.com" not in written
