"""Every page opens on a phone without an error, every link and anchor leads somewhere, and the search finds words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag
from urllib.request import urlopen

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.html.server import Served, served

HTML = Path(__file__).parents[2] / "build/html"
NOT_LINKED = {"genindex.html", "search.html"}  # made by Sphinx; the second one is the target of a form
PHONE, DESK = (390, 844), (1400, 1000)
SECONDS = 20


class Page(NamedTuple):
    """What the browser has of a page."""

    links: list[str]
    ids: set[str]
    errors: list[str]
    width: int
    outside: list[str]
    """Blocks that reach beyond the page's right edge."""


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    assert (HTML / "index.html").is_file(), "make docs builds the pages"
    with served(HTML) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Root has no sandbox; any other host's name is an error, so a page that loads something from elsewhere shows it.
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(SECONDS)
    yield driver
    driver.quit()


def show_as(browser: webdriver.Chrome, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def opened(browser: webdriver.Chrome, address: str) -> Page:
    browser.get(address)
    found = browser.execute_script(
        """return [
            [...document.querySelectorAll("a[href]")].map(a => a.href),
            [...document.querySelectorAll("[id]")].map(e => e.id),
            [...document.images].filter(i => !i.naturalWidth).map(i => `no picture: ${i.src}`),
            document.documentElement.scrollWidth,
            [...document.querySelectorAll(".content p, .content pre, .table-wrapper, .content img, h1, h2, h3")]
                .filter(e => !e.closest("table, pre pre") && e.getBoundingClientRect().right > arguments[0])
                .map(e => e.textContent.slice(0, 80)),
        ]""",
        PHONE[0],
    )
    said = [str(entry["message"]) for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    return Page(found[0], set(found[1]), found[2] + said, found[3], found[4])


@pytest.fixture(scope="module")
def pages(site: Served, browser: webdriver.Chrome) -> dict[str, Page]:
    """Every page that is reached from the first one by links, on a phone."""
    show_as(browser, PHONE)
    found: dict[str, Page] = {}
    waiting = [f"{site.address}index.html"]
    while waiting:
        address = waiting.pop()
        if address not in found:
            found[address] = opened(browser, address)
            waiting.extend(page for link in found[address].links if (page := _page(link, site)))
    return found


def _page(link: str, site: Served) -> str | None:
    """The address of the page of ours that a link leads to."""
    address = urldefrag(link).url
    return address if address.startswith(site.address) and address.endswith(".html") else None


def test_every_page_is_reached(pages: dict[str, Page], site: Served) -> None:
    reached = {address.removeprefix(site.address) for address in pages}
    assert {path.relative_to(HTML).as_posix() for path in HTML.glob("**/*.html")} - NOT_LINKED <= reached
    assert {"docs/users.html", "docs/reference/cray.html", "man/udi.1.html"} <= reached


def test_nothing_fails_to_load(pages: dict[str, Page], site: Served) -> None:
    errors = {address: page.errors for address, page in pages.items() if page.errors}
    assert not errors
    assert not site.refused


def test_no_page_is_wider_than_a_phone(pages: dict[str, Page]) -> None:
    wide = {
        address: (page.width, page.outside) for address, page in pages.items() if page.width > PHONE[0] or page.outside
    }
    assert not wide


def test_every_link_and_anchor_leads_somewhere(pages: dict[str, Page], site: Served) -> None:
    dead, elsewhere = [], set()
    for address, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if not target.startswith(site.address):
                elsewhere.add(link)
            elif target in pages:
                if anchor and unquote(anchor) not in pages[target].ids:
                    dead.append(f"{address}: {link}")
            elif not _is_served(target):
                dead.append(f"{address}: {link}")
    print("not asked for:", *sorted(elsewhere), sep="\n  ")
    assert all(link.startswith("https://") for link in elsewhere)
    assert not dead, "\n".join(dead)


def _is_served(address: str) -> bool:
    """Whether a file that is no page, such as an example, can be had."""
    with urlopen(address, timeout=SECONDS) as answer:
        return int(answer.status) == 200 and bool(answer.read(1))


def test_the_checks_can_fail(browser: webdriver.Chrome, site: Served, tmp_path: Path) -> None:
    show_as(browser, PHONE)
    head = "<meta name=viewport content=width=device-width><link rel=stylesheet href=none.css>"
    body = "<script src=https://example.org/x.js></script><img src=none.svg>"
    wide = "<div class=content><p style='width: 500px'>x</p></div>"
    (tmp_path / "bad.html").write_text(f"<html lang=en><head>{head}</head><body>{body}{wide}</body></html>")
    with served(tmp_path) as other:
        page = opened(browser, f"{other.address}bad.html")
        assert {"404 /none.css", "404 /none.svg"} <= set(other.refused)
    assert any("example.org" in said for said in page.errors) and any("no picture" in said for said in page.errors)
    assert page.width > PHONE[0] and page.outside == ["x"]


@pytest.mark.parametrize("by_file", [False, True], ids=["served", "from files"])
def test_the_search_finds_prologue(browser: webdriver.Chrome, site: Served, by_file: bool) -> None:
    """By the box that each page has; from files, too, as on a laptop without a network."""
    show_as(browser, DESK)
    browser.get(f"{HTML.as_uri()}/index.html" if by_file else f"{site.address}index.html")
    browser.find_element(By.NAME, "q").send_keys("prologue", Keys.ENTER)

    def results(driver: webdriver.Chrome) -> list[str]:
        return [str(link.get_attribute("href")) for link in driver.find_elements(By.CSS_SELECTOR, "ul.search li a")]

    WebDriverWait(browser, SECONDS).until(lambda driver: len(results(driver)) > 5)
    assert any("docs/install-hooks.html" in link for link in results(browser))
