"""Starts the real binary for client tests: `EASEL_BIN`, or the newest of target/release/easel and target/debug/easel."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    """The program to test."""
    if chosen := os.environ.get("EASEL_BIN"):
        return pathlib.Path(chosen).resolve()
    built = [path for kind in ("release", "debug") if (path := ROOT / "target" / kind / "easel").exists()]
    assert built, "build the program first: cargo build"
    return max(built, key=lambda path: path.stat().st_mtime)


class Server:
    """A running server."""

    def __init__(self, address, log):
        self.address = address
        self.log = log

    @property
    def base_url(self):
        return f"{self.address}/v1"

    def metric(self, series):
        """The value of a series of /metrics, 0 where it has none yet."""
        with urllib.request.urlopen(f"{self.address}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == series), 0.0)


@contextlib.contextmanager
def serving(*options, **environment):
    """A ready server with the bundled model; it is stopped at the end, and must then end well."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EASEL_")}
    with tempfile.TemporaryDirectory() as storage:
        command = [binary(), "serve", "--port", "0", "--storage", storage, *options]
        process = subprocess.Popen(command, env=clean | environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        log = []
        threading.Thread(target=lambda: log.extend(process.stdout), daemon=True).start()
        try:
            server = Server(_address(process, log), log)
            _await_ready(server, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=60)
        assert status == 0, "the server ended with %s:\n%s" % (status, "".join(log))


def _address(process, log, patience=60):
    for _ in range(patience * 20):
        found = re.search(r"http://[\d.]+:\d+", "".join(log))
        if found:
            return found.group()
        assert process.poll() is None, "".join(log)
        time.sleep(0.05)
    raise TimeoutError("".join(log))


def _await_ready(server, process, log, patience=120):
    for _ in range(patience * 10):
        with contextlib.suppress(urllib.error.URLError):
            with urllib.request.urlopen(f"{server.address}/readyz"):
                return
        assert process.poll() is None, "".join(log)
        time.sleep(0.1)
    raise TimeoutError("".join(log))
