"""A real browser: Debian's chromium without a window, driven through a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lab.parts import MissingPart, environment, find


def find_browser() -> str | None:
    """The browser's path: installed, or unpacked by lab/get_parts.sh; None if there is none."""
    if installed := shutil.which("chromium"):
        return installed
    with contextlib.suppress(MissingPart):
        return find("chromium-headless-shell")
    return None


class Browser:
    """One tab of a browser with a folder of its own.

    with Browser() as browser:
        browser.open("http://127.0.0.1:9106/")
        browser.run("document.title")
    """

    def __init__(self, width: int = 1200, height: int = 900) -> None:
        # What the page did that it must not: errors, refusals of the content security policy.
        self.complaints: list[str] = []
        self.received_bytes = 0
        self._folder = tempfile.TemporaryDirectory(prefix="browser")
        # The browser reads what it should do from descriptor 3, and answers on 4.
        command, self._write = os.pipe()
        self._read, answer = os.pipe()
        arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._folder.name}",
            f"--window-size={width},{height}",
        ]
        program = find_browser() or find("chromium-headless-shell")
        shell = f'exec "$0" "$@" 3<&{command} 4>&{answer}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *arguments, "about:blank"],
            pass_fds=(command, answer),
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        os.close(command)
        os.close(answer)
        self._pending = b""
        self._count = 0
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            part = os.read(self._read, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.loadingFinished":
            self.received_bytes += int(parameters["encodedDataLength"])
        elif method in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(parameters))

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        while self._loaded() != url:
            pass

    def _loaded(self) -> str:
        return self.run("document.readyState === 'complete' ? location.href : ''")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; that of a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 20.0) -> None:
        """Wait until an expression holds, which is looked at after each change of the page."""
        script = f"""new Promise((resolve) => {{
            const look = () => {{ if ({condition}) {{ observer.disconnect(); resolve(true); }} }};
            const observer = new MutationObserver(look);
            const kinds = {{ subtree: true, childList: true, attributes: true, characterData: true }};
            observer.observe(document, kinds);
            setTimeout(() => resolve(false), {seconds * 1000});
            look();
        }})"""
        assert self.run(script), (
            f"{condition} never came; the page says: {self.run('document.body.innerText')}"
        )

    def picture(self, filename: str | Path, height: int) -> None:
        """Write a picture of the page, from its top on, as PNG."""
        width = self.run("innerWidth")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        found = self.call("Page.captureScreenshot", format="png")
        Path(filename).write_bytes(base64.b64decode(found["data"]))

    def text(self, selector: str) -> str:
        """The text of the first element, as it is shown."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def look_again(self) -> None:
        """Have the page ask now, as it does when somebody comes back to its tab."""
        self.run("document.dispatchEvent(new Event('visibilitychange'))")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        with contextlib.suppress(OSError):
            self._folder.cleanup()
