"""A real JupyterLab with a copy of the notebooks, and Debian's chromium to work it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "browser"  # artefacts, to be looked at; git ignores them
CHROMIUM = os.environ.get("MEDV_CHROMIUM", "chromium")
TOKEN = "medv-lab-browser-test"
PATIENCE = float(os.environ.get("MEDV_BROWSER_PATIENCE", "180"))  # seconds for whatever a page must do
OPTIONS = (  # nothing is asked of the network, and a test can await commands
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--LabApp.expose_app_in_browser=True",
)
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
expect.set_options(timeout=1000 * PATIENCE)


@dataclass
class Lab:
    """A running JupyterLab.

    Attributes:
        address: of the server, without a path.
        folder: where its notebooks are.
    """

    address: str
    folder: Path

    def url(self, notebook: str) -> str:
        return f"{self.address}/lab/tree/{notebook}?token={TOKEN}"

    def end_kernels(self) -> None:
        """Shut down every kernel, so that a notebook opens with a new one."""
        with self._call("GET", "sessions") as answer:
            sessions = json.load(answer)
        for session in sessions:
            self._call("DELETE", f"sessions/{session['id']}").close()

    def _call(self, method: str, path: str):
        address = f"{self.address}/api/{path}?token={TOKEN}"
        return urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=PATIENCE)


@dataclass
class Tab:
    """A page of the browser, and what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, page: Page) -> "Tab":
        """Note every error of the page's console from now on."""
        tab = cls(page)
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: tab.errors.append(f"error: {error}"))
        page.on(
            "console",
            lambda said: tab.errors.append(f"console: {said.text}") if said.type == "error" else None,
        )
        return tab

    def screenshot(self, name: str, **options) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, **options)
        return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which(CHROMIUM)
    assert path, (
        f"no {CHROMIUM} on this machine: `make browser` installs it, or MEDV_CHROMIUM names another one"
    )
    with sync_playwright() as playwright:
        # Without its own sandbox, since CI runs as root; the pages are ours.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator:
    """Opens pages that note every error of their console."""
    contexts = []

    def open_tab(**options) -> Tab:
        context = browser.new_context(**options)
        contexts.append(context)
        return Tab.of(context.new_page())

    yield open_tab
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    notices = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notices.parent.mkdir(parents=True)
    notices.write_text(json.dumps(NO_NEWS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", *OPTIONS]
    command += [
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder}",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=settings, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        _await(address, server, folder / "log")
        yield Lab(address, folder)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _await(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
