"""Makes the pictures of docs/images: the console while one key attacks. Run it with what `scripts/setup console` has installed:

    .venv/bin/python3 tests/console/screenshots.py
"""

import pathlib
import random
import shutil
import tempfile
import threading
import time

from conftest import ROOT, Server
from playwright.sync_api import sync_playwright

SECONDS = 75
IMAGES = ROOT / "docs/images"


def attack(server, until):
    """Many users, of whom the first asks most, and one who attacks from the tenth second on."""
    chance, begin = random.Random(7), time.monotonic()
    while not until.is_set():
        user = min(int(chance.paretovariate(0.9)), 400)
        server.ask([("user", f"user-{user}@example.com")])
        server.ask([("path", "/login"), ("remote_address", f"10.0.0.{chance.randint(1, 40)}")])
        if time.monotonic() - begin > 10:
            server.ask([("user", "mallory@example.com")], chance.randint(2, 6))


def main():
    until = threading.Event()
    with tempfile.TemporaryDirectory(prefix="sluicegate-") as directory, sync_playwright() as playwright:
        server = Server(pathlib.Path(directory))
        traffic = [threading.Thread(target=attack, args=(server, until)) for _ in range(2)]
        try:
            for thread in traffic:
                thread.start()
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(color_scheme="light", viewport={"width": 1280, "height": 900})
            page.goto(f"{server.base}/console/")
            page.wait_for_timeout(SECONDS * 1000)
            page.screenshot(path=IMAGES / "console-now.png")
            page.get_by_role("link", name="mallory").click()
            page.wait_for_timeout(2500)
            page.screenshot(path=IMAGES / "console-key.png")
        finally:
            until.set()
            for thread in traffic:
                thread.join()
            server.stop()


if __name__ == "__main__":
    main()
