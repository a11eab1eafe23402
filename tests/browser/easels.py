"""What the two tabs that change pictures share: painting on the editor of a tab, and its mask."""

import numpy as np
from browsing import at_rest, until
from PIL import Image
from playwright.sync_api import Locator


def brush(tab: Locator) -> None:
    """A short stroke with the brush, near the middle of the picture."""
    mouse = tab.page.mouse
    box = at_rest(tab.locator(".mg-editor canvas").first)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x - 30, y)
    mouse.down()
    mouse.move(x + 30, y, steps=6)
    mouse.up()


def mask_of(tab: Locator) -> np.ndarray:
    """The mask as it arrives on the server, and comes back as a file."""
    with tab.page.expect_download() as download:
        tab.get_by_role("button", name="Download mask", exact=True).click()
    return np.asarray(Image.open(download.value.path())) > 127


def expect_mask(tab: Locator, mask: np.ndarray) -> None:
    until(tab.page, lambda: np.array_equal(mask_of(tab), mask), "another mask arrives")
