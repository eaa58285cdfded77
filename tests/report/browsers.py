"""Two real browsers, driven by the protocols that they bring: chromedriver's HTTP, Marionette."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "browser.startup.homepage": "about:blank",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Browser(Protocol):
    """What the tests do with a browser."""

    name: str

    def open(self, address: str) -> None:
        """Open an address."""

    def run(self, script: str, *values: object) -> object:
        """Run the body of a function in the page; a promise is waited for."""

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window."""

    def complaints(self) -> list[str]:
        """Return and forget errors of scripts, loads and the policy."""

    def requests(self) -> list[str]:
        """Return and forget the addresses that were asked for."""


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def settle(browser: Browser, condition: str, seconds: float = 20) -> object:
    """Wait until an expression in the page is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = browser.run(f"return ({condition})")
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{browser.name}: {condition} is not true after {seconds:g} s")


class Chromium:
    """Chromium over chromedriver."""

    name = "chromium"

    def __init__(self, port: int, dark: bool, profile: str) -> None:
        self.port = port
        self.requested: list[str] = []
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        arguments += [f"--user-data-dir={profile}", "--disable-dev-shm-usage"]
        arguments += ["--force-device-scale-factor=1"]
        if dark:
            arguments.append("--force-dark-mode")
            arguments.append("--blink-settings=preferredColorScheme=0")
        capabilities = {
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self.post("/session", {"capabilities": {"alwaysMatch": capabilities}})
        assert isinstance(answer, dict)
        self.session = f"/session/{answer['sessionId']}"

    def post(self, path: str, body: object) -> object:
        """Send one command."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=100) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(refused.read().decode()[:2000]) from None

    def open(self, address: str) -> None:
        self.post(f"{self.session}/url", {"url": address})

    def run(self, script: str, *values: object) -> object:
        return self.post(f"{self.session}/execute/sync", {"script": script, "args": list(values)})

    def screenshot(self, path: Path) -> None:
        request = f"http://127.0.0.1:{self.port}{self.session}/screenshot"
        with urllib.request.urlopen(request, timeout=100) as answer:
            path.write_bytes(base64.b64decode(json.load(answer)["value"]))

    def resize(self, width: int, height: int) -> None:
        body = {
            "cmd": "Emulation.setDeviceMetricsOverride",
            "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        }
        self.post(f"{self.session}/goog/cdp/execute", body)

    def log(self, kind: str) -> list[dict[str, str]]:
        """Read and forget one of the browser's logs."""
        found = self.post(f"{self.session}/se/log", {"type": kind})
        assert isinstance(found, list)
        return found

    def complaints(self) -> list[str]:
        return [row["message"] for row in self.log("browser") if row["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        found = []
        for row in self.log("performance"):
            message = json.loads(row["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def close(self) -> None:
        """End the session."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.session}", method="DELETE"
        )
        urllib.request.urlopen(request, timeout=30).close()


class Firefox:
    """Firefox over Marionette: lengths and JSON on a socket."""

    name = "firefox"

    def __init__(self, port: int) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=100)
                break
            except OSError:
                assert time.monotonic() < end, "firefox does not listen"
                time.sleep(0.2)
        self.waiting = b""
        self.number = 0
        self.seen = 0
        self.receive()
        self.send("WebDriver:NewSession", {})

    def receive(self) -> object:
        """Read one message."""
        while b":" not in self.waiting:
            self.waiting += self.socket.recv(65536)
        length, _, rest = self.waiting.partition(b":")
        while len(rest) < int(length):
            rest += self.socket.recv(1 << 20)
        self.waiting = rest[int(length) :]
        return json.loads(rest[: int(length)])

    def send(self, command: str, values: object) -> object:
        """Send one command and return its answer."""
        self.number += 1
        text = json.dumps([0, self.number, command, values]).encode()
        self.socket.sendall(f"{len(text)}:".encode() + text)
        answer = self.receive()
        assert isinstance(answer, list)
        assert answer[2] is None, answer[2]
        found = answer[3]
        return found["value"] if isinstance(found, dict) and set(found) == {"value"} else found

    def open(self, address: str) -> None:
        self.send("WebDriver:Navigate", {"url": address})

    def run(self, script: str, *values: object) -> object:
        body = {"script": script, "args": list(values), "sandbox": None}
        return self.send("WebDriver:ExecuteScript", body)

    def screenshot(self, path: Path) -> None:
        found = self.send("WebDriver:TakeScreenshot", {"full": False})
        path.write_bytes(base64.b64decode(str(found)))

    def resize(self, width: int, height: int) -> None:
        self.send("WebDriver:SetWindowRect", {"width": width, "height": height + 86})

    def chrome(self, script: str) -> object:
        """Run a script with the browser's own rights."""
        self.send("Marionette:SetContext", {"value": "chrome"})
        try:
            return self.run(script)
        finally:
            self.send("Marionette:SetContext", {"value": "content"})

    def complaints(self) -> list[str]:
        found = self.chrome(
            "return Services.console.getMessageArray().filter(m => m instanceof "
            "Ci.nsIScriptError && !(m.flags & Ci.nsIScriptError.warningFlag) && "
            "/^(file|http):/.test(m.sourceName)).map(m => m.errorMessage)"
        )
        self.chrome("Services.console.reset()")
        assert isinstance(found, list)
        return [str(line) for line in found]

    def requests(self) -> list[str]:
        found = self.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert isinstance(found, list)
        return [str(line) for line in found]

    def close(self) -> None:
        """End the browser."""
        self.send("Marionette:Quit", {"flags": ["eForceQuit"]})
        self.socket.close()


@contextmanager
def chromium(dark: bool = False) -> Iterator[Chromium]:
    """Start Chromium."""
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(port)
            browser = Chromium(port, dark, profile)
            yield browser
            browser.close()
        finally:
            driver.terminate()
            driver.wait(20)


def wait_for(port: int) -> None:
    """Wait until somebody listens at a port."""
    for _ in range(300):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens at {port}")


@contextmanager
def firefox(dark: bool = False) -> Iterator[Firefox]:
    """Start Firefox."""
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        wanted = {
            **PREFERENCES,
            "marionette.port": port,
            "layout.css.prefers-color-scheme.content-override": 0 if dark else 1,
        }
        lines = [f'user_pref("{key}", {json.dumps(value)});' for key, value in wanted.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        command = ["firefox-esr", "--headless", "--marionette", "--remote-allow-system-access"]
        process = subprocess.Popen(
            [*command, "--no-remote", "--profile", profile],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            browser = Firefox(port)
            yield browser
            browser.close()
        finally:
            process.terminate()
            process.wait(20)


BROWSERS: dict[str, Callable[[bool], AbstractContextManager[Browser]]] = {
    "chromium": chromium,
    "firefox": firefox,
}
