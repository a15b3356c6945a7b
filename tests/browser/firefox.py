"""Firefox by WebDriver BiDi, in the little that the page's test asks: no driver is installed."""

import itertools
import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import websocket  # jupyter-server brings it

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox") or ""
OFFLINE = {"type": 1, "http": "127.0.0.1", "http_port": 9, "ssl": "127.0.0.1", "ssl_port": 9}


class Page:
    """One open page; ``asked`` are the addresses it has requested, files and all."""

    def __init__(self, address: str, url: str):
        self.socket = websocket.create_connection(address, timeout=300, suppress_origin=True)
        self.numbers, self.asked = itertools.count(), []
        self.call("session.new", capabilities={})
        self.place = self.call("browsingContext.getTree")["contexts"][0]["context"]
        self.call("session.subscribe", events=["network.beforeRequestSent"], contexts=[self.place])
        self.call("browsingContext.navigate", context=self.place, url=url, wait="complete")

    def call(self, method: str, **parameters) -> dict:
        number = next(self.numbers)
        content = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(content))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            if answer.get("method") == "network.beforeRequestSent":
                self.asked.append(answer["params"]["request"]["url"])
        assert answer["type"] == "success", answer
        return answer["result"]

    def value(self, script: str):
        """What a script gives, once it is settled."""
        target = {"context": self.place}
        found = self.call("script.evaluate", expression=script, target=target, awaitPromise=True)
        assert found["type"] == "success", found
        return found["result"].get("sharedId") or found["result"].get("value")

    def give(self, selector: str, files: list[Path]) -> None:
        element = {"sharedId": self.value(f"document.querySelector({selector!r})")}
        names = [str(file) for file in files]
        self.call("input.setFiles", context=self.place, element=element, files=names)


@contextmanager
def open_firefox(profile: Path, url: str):
    """A page in a Firefox of its own, whose every way out is a closed port."""
    profile.mkdir()
    lines = (f'user_pref("network.proxy.{k}", {json.dumps(v)});\n' for k, v in OFFLINE.items())
    (profile / "user.js").write_text("".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--remote-debugging-port", "0"]
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([*command, "--profile", str(profile)], **options)
    try:
        told = (re.search(r"BiDi listening on (ws://\S+)", line) for line in process.stderr)
        address = next(filter(None, told)).group(1)
        yield Page(f"{address}/session", url)
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
