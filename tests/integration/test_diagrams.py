"""Each Mermaid diagram of README and docs is drawn, as the pages of a repository show it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from dev.stack import install

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
DIAGRAMS = [
    pytest.param(diagram, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, diagram in enumerate(DIAGRAM.findall(page.read_text(encoding="utf-8")), 1)
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = install.chromium()
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_content("<!DOCTYPE html><html><body></body></html>")
    page.add_script_tag(path=install.mermaid())
    page.evaluate("mermaid.initialize({startOnLoad: false})")
    yield page
    page.close()


def draw(page: Page, diagram: str) -> str:
    """Return the SVG that Mermaid draws. Raises what Mermaid says against the text."""
    svg: str = page.evaluate("async text => (await mermaid.render('drawn', text)).svg", diagram)
    return svg


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{4,}", text))


@pytest.mark.parametrize("diagram", DIAGRAMS)
def test_it_is_drawn(page: Page, diagram: str, request: pytest.FixtureRequest) -> None:
    svg = draw(page, diagram)
    labels = re.findall(
        r'\["([^"]+)"\]|-- "([^"]+)" -|-\. "([^"]+)" \.|: (.+)$', diagram, re.MULTILINE
    )
    expected = words(" ".join(label for label in map("".join, labels)))
    assert expected
    assert expected <= words(re.sub(r"<[^>]+>", " ", svg))
    folder = ROOT / ".stack" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    page.set_content(f"<body>{svg}</body>")
    name = re.sub(r"\W+", "-", request.node.callspec.id)
    page.screenshot(path=folder / f"diagram-{name}.png", full_page=True)


def test_a_wrong_one_is_refused(page: Page) -> None:
    with pytest.raises(Error, match="Parse error"):
        draw(page, "flowchart LR\n  a --> --> b")
