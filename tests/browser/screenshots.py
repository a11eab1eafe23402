"""Screenshots for assets/screenshots: `PYTHONPATH=tests/browser python tests/browser/screenshots.py ["PROMPT"]`.

Runs the real app with the weights that the settings name, by day and by night, on a desk and on a phone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from browsing import FLAGS, free_port
from playwright.sync_api import expect, sync_playwright

from markovgen_app.runtime import load_runtime
from markovgen_app.settings import load_settings
from markovgen_app.ui.build import build, launch

FOLDER = Path(__file__).parents[2] / "assets" / "screenshots"
SEED = 1
MINUTE = 60_000  # ms


def take(url: str, prompt: str) -> None:
    """Generate and About at both widths in both schemes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=FLAGS
        )
        for width, height in ((1440, 1000), (390, 844)):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
                page.set_default_timeout(MINUTE)
                page.goto(f"{url}?p={prompt}&seed={SEED}")
                expect(page.get_by_label("Describe a picture")).to_have_value(prompt)
                page.get_by_role("button", name="Run", exact=True).click()
                expect(page.locator(".mg-label")).to_have_text("Ready", timeout=MINUTE)
                page.wait_for_timeout(500)
                page.screenshot(path=FOLDER / f"generate-{width}-{scheme}.png")
                page.get_by_role("tab", name="About").click()
                page.get_by_role("heading", name="What this model knows").wait_for()
                page.screenshot(path=FOLDER / f"about-{width}-{scheme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    settings = load_settings(port=free_port())
    app = build(load_runtime(settings), settings)
    launch(app, settings, prevent_thread_lock=True, quiet=True)
    take(
        f"http://127.0.0.1:{settings.port}/",
        sys.argv[1] if len(sys.argv) > 1 else "a panda next to a pizza on a brick wall",
    )
    app.close()
