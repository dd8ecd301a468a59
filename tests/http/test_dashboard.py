"""The dashboard in a real browser: Debian's Chromium, driven by Playwright."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect
from tests.conftest import Serving, StartEngine, StartGateway, lane
from tests.decision_logs import log_of

CHAT = "/v1/chat/completions"
expect.set_options(timeout=15_000)
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1200, "height": 900}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium; .ci/run should have installed it")
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        await started.close()


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))


async def opened(browser: Browser, url: str, size: Any = DESK, scheme: Any = "light") -> Watched:
    watched = Watched(await browser.new_page(viewport=size, color_scheme=scheme))
    await watched.page.goto(f"{url}/paceline/")
    return watched


async def test_it_shows_lanes_and_decisions_as_they_come(browser: Browser, real_gateway: Serving) -> None:
    watched = await opened(browser, real_gateway.url)
    page = watched.page
    await expect(page.get_by_role("status")).to_contain_text("2 of 2 lanes up")
    await expect(page.locator("#lanes tr")).to_have_count(2)
    await expect(page.locator("#lanes tr").first).to_contain_text("plain")
    asked = {"messages": [{"role": "user", "content": "Write a poem about rain."}], "max_tokens": 12}
    async with httpx2.AsyncClient(base_url=real_gateway.url, timeout=60, trust_env=False) as http:
        for number in range(2):
            before = await page.locator("#requests tr").count()
            (await http.post(CHAT, json=asked, headers={"x-request-id": str(number)})).raise_for_status()
            await expect(page.locator("#requests tr")).to_have_count(min(30, before + 1), timeout=10_000)
    newest = page.locator("#requests tr").first
    await expect(newest).to_contain_text("create")
    await expect(newest).to_contain_text("200")
    await expect(page.locator("#tasks tr", has_text="create")).to_be_visible()
    await expect(page.locator("#verdict")).not_to_have_text("not known yet")
    assert watched.complaints == []
    assert all(url.startswith((real_gateway.url, "data:")) for url in watched.asked)


async def test_a_prompt_can_be_tried_by_keyboard(browser: Browser, real_gateway: Serving) -> None:
    watched = await opened(browser, real_gateway.url)
    page = watched.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the lanes")).to_be_focused()
    await page.get_by_label("Prompt").focus()
    await page.keyboard.press("Control+A")
    await page.keyboard.type("Summarise: the cat sat on the mat, and the dog did not.")
    for _ in range(3):
        await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Only decide")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#predictions tr")).to_have_count(2)
    await expect(page.locator("#decision")).to_contain_text("Would go to")
    await expect(page.locator("#signals")).to_contain_text("summarise")
    await expect(page.get_by_role("button", name="Only decide")).to_be_focused()
    await page.get_by_label("Most tokens").fill("8")
    await page.get_by_label("Lane", exact=True).select_option("ngram")
    await page.get_by_role("button", name="Send").press("Enter")
    await expect(page.locator("#decision")).to_contain_text("ngram: the request forces this lane")
    await expect(page.get_by_label("Answer")).to_have_text(re.compile(r"\w"))
    assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
async def test_it_is_accessible(browser: Browser, real_gateway: Serving, size: Any, scheme: Any) -> None:
    page = (await opened(browser, real_gateway.url, size, scheme)).page
    await expect(page.locator("#lanes tr")).to_have_count(2)
    await page.get_by_role("button", name="Only decide").click()
    await expect(page.locator("#predictions tr")).to_have_count(2)
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_it_can_be_paused(browser: Browser, real_gateway: Serving) -> None:
    watched = await opened(browser, real_gateway.url)
    page = watched.page
    await expect(page.locator("#lanes tr")).to_have_count(2)
    pause = page.get_by_role("button", name="Pause updates")
    await pause.click()
    await expect(pause).to_have_attribute("aria-pressed", "true")
    await page.wait_for_timeout(300)
    asked = len(watched.asked)
    await page.wait_for_timeout(1500)
    assert len(watched.asked) == asked


async def test_a_key_is_asked_for(browser: Browser, start_gateway: StartGateway, start_engine: StartEngine) -> None:
    engine = await start_engine()
    gateway = await start_gateway('server.api_keys = ["a-key"]\n' + lane("only", engine.url))
    page = (await opened(browser, gateway.url)).page
    await expect(page.get_by_role("status")).to_have_text("this gateway wants an API key")
    await page.get_by_label("API key").fill("a-key")
    await page.get_by_role("button", name="Use it").click()
    await expect(page.locator("#lanes tr")).to_have_count(1)
    await expect(page.get_by_label("API key")).to_be_hidden()


async def test_a_key_that_does_not_open_it_can_be_replaced_after_a_reload(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    keys = 'server.admin_key = "admins"\n[[key]]\nname = "team"\nkey = "a-key"\n'
    gateway = await start_gateway(keys + lane("only", (await start_engine()).url))
    page = (await opened(browser, gateway.url)).page
    for key, said in (("a-key", "does not open /paceline/lanes"), ("no-key", "this is no key of the gateway")):
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Use it").click()
        await expect(page.get_by_role("status")).to_contain_text(said)
        await page.reload()
        await expect(page.get_by_label("API key")).to_be_visible()


async def test_what_is_wrong_is_shown(browser: Browser, start_gateway: StartGateway, start_engine: StartEngine) -> None:
    engine = await start_engine()
    gateway = await start_gateway(lane("only", engine.url) + lane("gone", "http://127.0.0.1:9"))
    page = (await opened(browser, gateway.url)).page
    await expect(page.get_by_role("status")).to_contain_text("1 of 2 lanes up")
    await expect(page.locator("#lanes tr", has_text="gone").locator(".problem")).not_to_be_empty()
    await expect(page.locator("#verdict")).to_contain_text("no decision log is kept")
    await page.get_by_label("Lane", exact=True).select_option("gone")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#decision")).to_contain_text("gone")
    await gateway.stop()
    await expect(page.get_by_role("status")).to_contain_text("does not answer", timeout=10_000)


async def test_models_with_lanes_of_their_own_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    log = tmp_path / "paceline" / "requests.sqlite"
    log_of(log, {"plain": 0.1, "ngram": 0.05}, model="small-")
    log_of(log, {"plain": 0.3, "ngram": 0.9}, model="large-")
    (tmp_path / "paceline.toml").write_text(lane("only", "http://127.0.0.1:9"))
    with Serving("--config", str(tmp_path / "paceline.toml"), folder=tmp_path) as serving:
        watched = await opened(browser, serving.url, PHONE)
        page = watched.page
        await expect(page.locator("#policies tr")).to_have_count(8)
        await expect(page.locator("#policies tr").first).to_have_text(
            "m: 200 requests that chose among large-plain, large-ngram"
        )
        await expect(page.locator("#verdict")).to_contain_text("always small-ngram")
        assert (await Axe().run(page)).violations_count == 0
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert watched.complaints == []


PRICED = '[[cloud]]\nname = "m"\ninput_price = 1000.0\noutput_price = 2000.0\n[[budget]]\nlimit = 0.05\n'
BOTH = '[[model]]\nname = "m"\nlanes = ["gpu", "cloud"]\n'


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_where_requests_went_and_what_they_cost(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine, scheme: Any
) -> None:
    gpu, cloud = await start_engine(), await start_engine()
    tables = lane("gpu", gpu.url) + lane("cloud", cloud.url, more="cloud = true")
    gateway = await start_gateway(PRICED + BOTH + tables)
    watched = await opened(browser, gateway.url, PHONE, scheme)
    page = watched.page
    await expect(page.locator("#note-money")).to_contain_text("No answers yet")
    await expect(page.locator("#saved")).to_contain_text("no answer yet")
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    for headers in ({"x-paceline-private": "yes"}, {"x-paceline-lane": "cloud"}):
        (await gateway.http.post(CHAT, json=asked, headers=headers)).raise_for_status()
    own, provider = page.locator("#engines tr").first, page.locator("#engines tr").last
    await expect(own).to_contain_text("private, stays on this machine: 1")
    await expect(provider).to_contain_text("a provider's")
    await expect(provider).to_contain_text("0.015")
    await expect(page.locator("#saved")).to_contain_text("m for everything would have cost 0.03 USD for 2 answers")
    await expect(page.locator("#budgets tr")).to_contain_text("this day")
    await expect(page.locator("#budgets tr")).to_contain_text("30 %")
    await expect(page.get_by_role("columnheader", name="cost, USD")).to_be_visible()
    await expect(page.locator("#requests tr").last).to_contain_text("not cloud: ")
    await expect(page.locator("#requests tr").first).to_contain_text("0.015")
    await page.get_by_role("button", name="Only decide").click()
    await expect(page.locator("#places tr")).to_have_count(2)
    assert (await Axe().run(page)).violations_count == 0
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert watched.complaints == []


async def test_nothing_of_money_is_shown_where_nothing_costs_anything(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    page = (await opened(browser, gateway.url)).page
    await gateway.http.post(CHAT, json={"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    await expect(page.locator("#requests tr")).to_have_count(1)
    await expect(page.locator("#money-part")).to_be_hidden()
    await expect(page.locator("#cost")).to_be_hidden()
    await page.get_by_role("button", name="Only decide").click()
    await expect(page.locator("#predictions tr")).to_have_count(1)
    await expect(page.locator("#places-part")).to_be_hidden()
