"""A headless Chromium that opens one page and says what happened: console, requests, layout, a screenshot.

It speaks the DevTools protocol over a pipe, so that it needs nothing but the browser.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TIMEOUT_S = 60.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Visit:
    """What a page did.

    Attributes:
        messages: console errors and warnings, uncaught exceptions, browser log entries.
        requests: every URL asked for, but the page's own and data: URLs.
        client_width, scroll_width: of the document, in CSS pixels.
        overflowing: elements that reach beyond the page's right edge and scroll in nothing.
        cut: words of a picture that reach beyond the picture's edge.
        overlapping: words of a picture that lie on one another.
        png: screenshot of the whole page.
    """

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    client_width: int = 0
    scroll_width: int = 0
    overflowing: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    png: bytes = b""


class Chromium:
    """One browser with one page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer = b""
        self._next = 0
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session: str | None = None
        self._session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call, and wait for the answer; events on the way are kept."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": params or {}}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        """Until such an event has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def visit(self, path: Path, width: int, *, dark: bool = False, open_details: bool = False) -> Visit:
        """Open a local file at a width of so many CSS pixels."""
        self.events.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})
        url = path.absolute().as_uri()
        self.send("Page.navigate", {"url": url})
        self.wait_for("Page.loadEventFired")
        if open_details:
            self.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        found = Visit(client_width=self.evaluate("document.documentElement.clientWidth"))
        found.scroll_width = self.evaluate("document.documentElement.scrollWidth")
        found.overflowing = self.evaluate(_OVERFLOWING)
        found.cut = self.evaluate(_CUT)
        found.overlapping = self.evaluate(_OVERLAPPING)
        height = self.evaluate("Math.ceil(document.documentElement.getBoundingClientRect().height)")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 16000), "scale": 1}
        shot = self.send("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
        found.png = base64.b64decode(shot["data"])
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.messages.append(" ".join(str(a.get("value", a)) for a in params["args"]))
            elif event.get("method") == "Runtime.exceptionThrown":
                found.messages.append(str(params["exceptionDetails"].get("text")))
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.messages.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event.get("method") == "Network.requestWillBeSent":
                asked = params["request"]["url"]
                if asked != url and not asked.startswith("data:"):
                    found.requests.append(asked)
        return found

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + _TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            if not piece:
                raise RuntimeError("the browser went away" if ready else f"no answer in {_TIMEOUT_S:.0f} s")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        value: dict[str, Any] = json.loads(text)
        return value


_OVERFLOWING = """
[...document.body.querySelectorAll('*')].filter(e => {
  if (e.closest('.scroll, pre, svg') && !e.matches('.scroll, pre, svg')) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 0.5;
}).map(e => e.tagName + '.' + e.getAttribute('class') + ' ' + e.textContent.slice(0, 60))
"""


_CUT = """
[...document.querySelectorAll('svg text')].filter(e => {
  const word = e.getBoundingClientRect(), all = e.ownerSVGElement.getBoundingClientRect();
  return word.left < all.left - 1 || word.right > all.right + 1
    || word.top < all.top - 1 || word.bottom > all.bottom + 1;
}).map(e => e.ownerSVGElement.querySelector('title').textContent + ': ' + e.textContent)
"""


_OVERLAPPING = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const words = [...svg.querySelectorAll('text')].map(e => [e, e.getBoundingClientRect()]);
  return words.flatMap(([e, a], i) => words.slice(i + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.4 * Math.min(a.height, b.height)
  ).map(([f]) => svg.querySelector('title').textContent + ': ' + e.textContent + ' | ' + f.textContent));
})
"""


@contextmanager
def chromium(executable: str) -> Iterator[Chromium]:
    """A running browser with a profile of its own; ended on exit."""
    profile = tempfile.mkdtemp(prefix="chromium-")
    to_browser_read, to_browser = os.pipe()
    from_browser, from_browser_write = os.pipe()
    quiet = os.open(os.devnull, os.O_RDWR)
    # Away from 3 and 4, which the browser's ends become.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_browser_read, from_browser_write)]
    actions = [
        (os.POSIX_SPAWN_DUP2, quiet, 0),
        (os.POSIX_SPAWN_DUP2, quiet, 1),
        (os.POSIX_SPAWN_DUP2, quiet, 2),
        (os.POSIX_SPAWN_DUP2, ends[0], 3),
        (os.POSIX_SPAWN_DUP2, ends[1], 4),
    ]
    arguments = [executable, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    pid = os.posix_spawn(executable, arguments, dict(os.environ), file_actions=actions, setsid=True)
    for handle in (to_browser_read, from_browser_write, quiet, *ends):
        os.close(handle)
    try:
        yield Chromium(to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(profile, ignore_errors=True)
