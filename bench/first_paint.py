"""When pages first show something, in Chromium with an empty cache."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from playwright.sync_api import Browser, sync_playwright

from tests.provisioning.chromium import ARGUMENTS, find_chromium

#: By the browser's own clock, from the start of the navigation; it may still be to come.
_FIRST_PAINT = """
() => new Promise((done) => new PerformanceObserver((list) => {
  const [paint] = list.getEntriesByName("first-contentful-paint");
  if (paint) done(paint.startTime);
}).observe({ type: "paint", buffered: true }))
"""


def measure(url: str, cookie: str, paths: Sequence[str], *, loads: int = 5) -> dict[str, dict[str, float]]:
    """For each path, the median and maximum of the first contentful paint, from the start of the navigation.
    Milliseconds; empty if there is no Chromium."""
    chromium = find_chromium()
    if chromium is None:
        return {}
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS)) as browser,
    ):
        # A browser's first page is different, because the browser is still starting.
        _first_paint(browser, url, cookie, paths[0])
        found: dict[str, dict[str, float]] = {}
        for path in paths:
            times = [_first_paint(browser, url, cookie, path) for _ in range(loads)]
            found[path] = {"paint": round(median(times)), "paint_max": round(max(times))}
        return found


def _first_paint(browser: Browser, url: str, cookie: str, path: str) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        name, _, value = cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": url}])
        page = context.new_page()
        page.goto(f"{url}{path}")
        return float(page.evaluate(_FIRST_PAINT))
    finally:
        context.close()
