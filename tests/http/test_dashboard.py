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
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect
from tests.conftest import RunningGateway, Serving, StartEngine, StartGateway, chat, lane
from tests.decision_logs import log_of
from tests.fake_engine import Received, Wire, answer

from paceline.http.dashboard import DOCUMENTS

CHAT = "/v1/chat/completions"
expect.set_options(timeout=15_000)
PHONE, DESK = ViewportSize(width=390, height=800), ViewportSize(width=1400, height=900)
MAX_FIRST_PAINT_BYTES = 100_000
HOSTILE = '<img src=x onerror="document.title=1">'


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


async def opened(browser: Browser, url: str, size: ViewportSize = DESK, scheme: Any = "light") -> Watched:
    watched = Watched(await browser.new_page(viewport=size, color_scheme=scheme))
    await watched.page.goto(f"{url}/paceline/")
    return watched


async def assert_accessible(page: Page) -> None:
    """No finding of axe, and nothing that has to be scrolled sideways."""
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def ask(gateway: RunningGateway, count: int = 1, **more: Any) -> None:
    for _ in range(count):
        (await gateway.http.post(CHAT, json=chat(model="m", **more))).raise_for_status()


async def test_it_shows_lanes_and_decisions_as_they_come(browser: Browser, real_gateway: Serving) -> None:
    watched = await opened(browser, real_gateway.url)
    page = watched.page
    await expect(page.get_by_role("status")).to_contain_text("Serving: 2 of 2 engines up")
    await expect(page.locator("#engines article")).to_have_count(2)
    await expect(page.locator("#engines tbody tr").first).to_contain_text("plain")
    asked = {"messages": [{"role": "user", "content": "Write a poem about rain."}], "max_tokens": 12, "stream": True}
    rows = page.locator("#ended tbody tr")
    async with httpx2.AsyncClient(base_url=real_gateway.url, timeout=60, trust_env=False) as http:
        for number in range(2):
            before = await rows.count()
            (await http.post(CHAT, json=asked, headers={"x-request-id": str(number)})).raise_for_status()
            await expect(rows).to_have_count(min(25, before + 1), timeout=10_000)
    await expect(rows.first).to_contain_text("create")
    await expect(rows.first).to_contain_text("200")
    await expect(rows.first).to_contain_text("Taken for create")
    await expect(page.locator("#tasks tbody tr", has_text="create")).to_be_visible()
    await expect(page.locator("#verdict")).not_to_contain_text("Asking")
    await expect(page.locator("#drafters article")).to_contain_text("ngram")
    await expect(page.locator(".tile", has_text="How fast?")).to_contain_text("first token", timeout=20_000)
    await expect(page.locator("#charts figure").first.locator("canvas")).to_be_visible()
    assert watched.complaints == []
    assert all(url.startswith((real_gateway.url, "data:")) for url in watched.asked)


async def test_a_prompt_can_be_tried_by_keyboard(browser: Browser, real_gateway: Serving) -> None:
    watched = await opened(browser, real_gateway.url)
    page = watched.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to what matters")).to_be_focused()
    await page.get_by_label("Prompt", exact=True).focus()
    await page.keyboard.press("Control+A")
    await page.keyboard.type("Summarise: the cat sat on the mat, and the dog did not.")
    for _ in range(3):
        await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Only decide")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#explained tbody tr")).to_have_count(2)
    await expect(page.locator("#decision")).to_contain_text("Would go to")
    await expect(page.locator("#explained")).to_contain_text("summarise")
    await expect(page.get_by_role("button", name="Only decide")).to_be_focused()
    await page.get_by_label("Most tokens").fill("8")
    await page.get_by_label("Lane", exact=True).select_option("ngram")
    await page.get_by_role("button", name="Send").press("Enter")
    await expect(page.locator("#decision")).to_contain_text("ngram: the request forces this lane")
    await expect(page.get_by_label("Answer")).to_have_text(re.compile(r"\w"))
    assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
async def test_it_is_accessible(browser: Browser, real_gateway: Serving, size: ViewportSize, scheme: Any) -> None:
    asked = {"messages": [{"role": "user", "content": "Write a poem about rain."}], "max_tokens": 12}
    httpx2.post(f"{real_gateway.url}{CHAT}", json=asked, timeout=60, trust_env=False).raise_for_status()
    page = (await opened(browser, real_gateway.url, size, scheme)).page
    await expect(page.locator("#engines article")).to_have_count(2)
    await expect(page.locator("#charts canvas").first).to_be_visible()
    await page.get_by_role("button", name="Only decide").click()
    await expect(page.locator("#explained tbody tr")).to_have_count(2)
    for summary in await page.locator("#engines summary").all():
        await summary.click()
    await assert_accessible(page)
    await page.locator("#ended tbody a").first.click()
    await expect(page.get_by_role("heading", name="Expected and measured")).to_be_visible()
    await assert_accessible(page)


async def test_a_request_has_a_page_with_what_was_expected_and_measured(
    browser: Browser, real_gateway: Serving
) -> None:
    asked = {"messages": [{"role": "user", "content": "Write a poem about rain."}], "max_tokens": 12}
    headers = {"x-request-id": "mine", "x-paceline-lane": "ngram"}
    httpx2.post(f"{real_gateway.url}{CHAT}", json=asked, headers=headers, timeout=60, trust_env=False)
    watched = await opened(browser, real_gateway.url)
    page = watched.page
    await page.get_by_role("searchbox").fill("mine")
    await page.locator("#ended tbody a").first.click()
    one = page.locator("#one-request")
    await expect(one.get_by_role("heading", name=re.compile(r"^Request \d+$"))).to_be_focused()
    await expect(one).to_contain_text("The request named ngram.")
    await expect(one.locator("tr", has_text="tokens of the answer")).to_contain_text("12")
    await expect(one.locator("section", has_text="What was expected of each lane").locator("tbody tr")).to_have_count(1)
    await expect(one).to_contain_text("create")
    await expect(one).to_contain_text("mine")
    await expect(page.locator("#overview")).to_be_hidden()
    await page.go_back()
    await expect(page.locator("#overview")).to_be_visible()
    assert watched.complaints == []
    await page.goto(f"{real_gateway.url}/paceline/#request/999999")
    await expect(one).to_contain_text("is not among the last 1000")
    await one.get_by_role("link", name="All requests").click()
    await expect(page.locator("#ended")).to_be_visible()


async def test_it_can_be_paused(browser: Browser, start_gateway: StartGateway, start_engine: StartEngine) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    watched = await opened(browser, gateway.url)
    page = watched.page
    await expect(page.locator("#engines article")).to_have_count(1)
    await expect(page.locator("#verdict")).not_to_contain_text("Asking")
    pause = page.get_by_role("button", name="Pause")
    await pause.click()
    await expect(pause).to_have_attribute("aria-pressed", "true")
    await page.wait_for_timeout(300)
    asked = len(watched.asked)
    await page.wait_for_timeout(1500)
    assert len(watched.asked) == asked


async def test_before_the_first_request_it_says_how_to_send_one(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    watched = await opened(browser, gateway.url, PHONE, "dark")
    page = watched.page
    await expect(page.locator("#ended")).to_contain_text(f"curl {gateway.url}{CHAT}")
    await expect(page.locator(".tile", has_text="What did it bring?")).to_contain_text("Cannot be told yet")
    await expect(page.locator(".tile", has_text="What needs you?")).to_contain_text("Nothing")
    await expect(page.locator("#drafters")).to_contain_text("No engine drafts")
    await expect(page.locator("#money")).to_be_hidden()
    await expect(page.locator("#slots")).to_be_hidden()
    await expect(page.locator("#state")).to_contain_text("None is kept (evidence.log is off)")
    await assert_accessible(page)
    assert not any("uplot" in url for url in watched.asked), "there is nothing to draw"
    assert watched.complaints == []


async def test_the_first_paint_is_light_and_asks_nobody_else(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    await ask(gateway)
    watched = await opened(browser, gateway.url)
    await expect(watched.page.locator("#charts canvas").first).to_be_visible()
    assert all(url.startswith((gateway.url, "data:")) for url in watched.asked)
    fetched = {url.removeprefix(gateway.url) for url in watched.asked} & DOCUMENTS.keys()
    assert fetched == DOCUMENTS.keys(), "each file is used"
    sizes = {path: len(document.body) for path, document in DOCUMENTS.items() if "uplot" not in path}
    assert sum(sizes.values()) < MAX_FIRST_PAINT_BYTES, sizes


async def test_text_of_others_is_never_taken_for_markup(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    async def hostile(received: Received, wire: Wire) -> None:
        if received.method == "POST":
            await wire.json({"error": {"message": HOSTILE}}, 500)
        else:
            await answer(received, wire)

    engine = await start_engine(hostile, models=(HOSTILE,))
    gateway = await start_gateway(lane("only", engine.url))
    await gateway.http.post(CHAT, json=chat(HOSTILE, model=HOSTILE), headers={"x-request-id": HOSTILE})
    watched = await opened(browser, gateway.url)
    page = watched.page
    await expect(page.locator("#engines")).to_contain_text(HOSTILE)
    await page.locator("#ended tbody a").first.click()
    await expect(page.locator("#one-request")).to_contain_text(HOSTILE)
    assert await page.locator("img").count() == 0
    assert await page.title() != "1"
    assert all(url.startswith((gateway.url, "data:")) for url in watched.asked)


async def test_words_are_explained_where_the_pointer_or_the_focus_is(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    page = (await opened(browser, gateway.url)).page
    word, tip = page.locator("#engines .term", has_text="break-even"), page.get_by_role("tooltip")
    await word.hover()
    await expect(tip).to_contain_text("drafting is as fast as plain decoding")
    await page.mouse.move(0, 0)
    await expect(tip).to_be_hidden()
    await word.focus()
    await expect(tip).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(tip).to_be_hidden()
    described = await word.get_attribute("aria-describedby")
    await expect(page.locator(f"#words #{described}")).to_contain_text("as fast as plain decoding")
    undefined = await page.evaluate(
        "[...document.querySelectorAll('.term')].filter((one) => !document.getElementById(`word-${one.dataset.word}`))"
    )
    assert undefined == []


async def test_requests_can_be_filtered_and_keep_the_focus(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    async def fails_once(received: Received, wire: Wire) -> None:
        if b"fail" in received.body:
            await wire.json({"error": {"message": "no"}}, 500)
        else:
            await answer(received, wire)

    gateway = await start_gateway(lane("only", (await start_engine(fails_once)).url))
    await ask(gateway, 30)
    await gateway.http.post(CHAT, json=chat("fail", model="m"))
    page = (await opened(browser, gateway.url)).page
    rows = page.locator("#ended tbody tr")
    await expect(rows).to_have_count(25)
    await page.get_by_role("button", name="Show 6 more").click()
    await expect(rows).to_have_count(31)
    await rows.nth(3).locator("a").focus()
    await ask(gateway)
    await expect(rows).to_have_count(32)
    await expect(rows.nth(4).locator("a")).to_be_focused()
    await page.get_by_label("Show").select_option("failed")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("500")
    await expect(page.locator("#count")).to_have_text("1 of the last 32 requests")
    await page.get_by_role("searchbox").fill("nowhere")
    await expect(page.locator("#ended")).to_have_text("None of them fits.")


async def test_a_time_range_is_chosen_and_remembered(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    await ask(gateway, 3)
    watched = await opened(browser, gateway.url)
    page = watched.page
    await expect(page.locator(".tile", has_text="How much?")).to_contain_text("3 requests")
    await page.get_by_label("Time range").select_option("7 days")
    await expect(page.locator(".tile", has_text="How fast?")).to_contain_text("in the last 7 days")
    assert any("range_s=604800" in url for url in watched.asked)
    await page.reload()
    await expect(page.get_by_label("Time range")).to_have_value("604800")


async def test_nothing_moves_for_those_who_want_that(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    page = await browser.new_page(reduced_motion="reduce")
    await page.goto(f"{gateway.url}/paceline/")
    await page.evaluate("document.body.append(Object.assign(document.createElement('i'), {className: 'live'}))")
    moving = "getComputedStyle(document.querySelector('i.live'), '::before').animationName"
    assert await page.evaluate(moving) == "none"
    await page.emulate_media(reduced_motion="no-preference")
    assert await page.evaluate(moving) == "beat"


async def test_a_key_is_asked_for(browser: Browser, start_gateway: StartGateway, start_engine: StartEngine) -> None:
    engine = await start_engine()
    gateway = await start_gateway('server.api_keys = ["a-key"]\n' + lane("only", engine.url))
    page = (await opened(browser, gateway.url)).page
    await expect(page.locator("#key-form")).to_contain_text("This gateway wants an API key.")
    await expect(page.locator("#overview")).to_be_hidden()
    await assert_accessible(page)
    await page.get_by_label("API key").fill("a-key")
    await page.get_by_role("button", name="Use it").click()
    await expect(page.locator("#engines article")).to_have_count(1)
    await expect(page.get_by_label("API key")).to_be_hidden()


async def test_a_key_that_does_not_open_it_can_be_replaced_after_a_reload(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    keys = 'server.admin_key = "admins"\n[[key]]\nname = "team"\nkey = "a-key"\n'
    gateway = await start_gateway(keys + lane("only", (await start_engine()).url))
    page = (await opened(browser, gateway.url)).page
    for key, said in (("a-key", "does not open /paceline/lanes"), ("no-key", "This is no key of the gateway.")):
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Use it").click()
        await expect(page.locator("#key-form")).to_contain_text(said)
        await page.reload()
        await expect(page.get_by_label("API key")).to_be_visible()


async def test_what_is_wrong_is_said_first_and_with_what_to_do(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(lane("only", engine.url) + lane("gone", "http://127.0.0.1:9"))
    page = (await opened(browser, gateway.url, PHONE)).page
    await expect(page.get_by_role("status")).to_contain_text("Serving, with less: 1 of 2 engines up")
    await expect(page.locator("#needs li")).to_contain_text("Start what should listen at http://127.0.0.1:9")
    await expect(page.locator("#engines article", has_text="gone").locator(".problem")).not_to_be_empty()
    await expect(page.locator("#verdict")).to_contain_text("No decision log is kept")
    await page.get_by_label("Lane", exact=True).select_option("gone")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#decision")).to_contain_text("gone")
    await engine.stop()
    await expect(page.get_by_role("status")).to_contain_text("Down: 0 of 2 engines up")
    await expect(page.locator("#needs li.critical").first).to_contain_text("every request is refused")
    await assert_accessible(page)
    await gateway.stop()
    await expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer")
    await expect(page).to_have_title(re.compile("No answer"))
    await assert_accessible(page)


async def test_models_with_lanes_of_their_own_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    log = tmp_path / "paceline" / "requests.sqlite"
    log_of(log, {"plain": 0.1, "ngram": 0.05}, model="small-")
    log_of(log, {"plain": 0.3, "ngram": 0.9}, model="large-")
    (tmp_path / "paceline.toml").write_text(lane("only", "http://127.0.0.1:9"))
    with Serving("--config", str(tmp_path / "paceline.toml"), folder=tmp_path) as serving:
        watched = await opened(browser, serving.url, PHONE)
        page = watched.page
        await expect(page.locator("#policies tbody tr")).to_have_count(8)
        await expect(page.locator("#policies tbody tr").first).to_have_text(
            "m: 200 requests that chose among large-plain, large-ngram"
        )
        await expect(page.locator("#verdict")).to_contain_text("always small-ngram")
        await expect(page.locator(".tile", has_text="How much?")).to_contain_text("400 requests")
        await assert_accessible(page)
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
    watched = await opened(browser, gateway.url, DESK, scheme)
    page = watched.page
    await expect(page.locator("#places")).to_contain_text("No answers yet")
    await expect(page.locator("#saved")).to_contain_text("no answer yet")
    asked = chat(model="m", max_tokens=3)
    for headers in ({"x-paceline-private": "yes"}, {"x-paceline-lane": "cloud"}):
        (await gateway.http.post(CHAT, json=asked, headers=headers)).raise_for_status()
    own, provider = page.locator("#places tbody tr").first, page.locator("#places tbody tr").last
    await expect(own).to_contain_text("private, stays on this machine: 1")
    await expect(provider).to_contain_text("a provider's")
    await expect(provider).to_contain_text("0.015")
    await expect(page.locator("#saved")).to_contain_text("m for everything would have cost 0.03 USD for 2 answers")
    await expect(page.locator("#budgets tbody tr")).to_contain_text("this day")
    await expect(page.locator("#budgets tbody tr")).to_contain_text("30 %")
    await expect(page.get_by_role("columnheader", name="cost, USD")).to_be_visible()
    await expect(page.locator("#ended tbody tr").last).to_contain_text("Not cloud: ")
    await expect(page.locator("#ended tbody tr").first).to_contain_text("0.015")
    await page.get_by_role("button", name="Only decide").click()
    await expect(page.get_by_role("region", name="Placement").locator("tbody tr")).to_have_count(2)
    await page.set_viewport_size(PHONE)
    await assert_accessible(page)
    assert watched.complaints == []


async def test_nothing_of_money_is_shown_where_nothing_costs_anything(
    browser: Browser, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    gateway = await start_gateway(lane("only", (await start_engine()).url))
    page = (await opened(browser, gateway.url)).page
    await ask(gateway)
    await expect(page.locator("#ended tbody tr")).to_have_count(1)
    await expect(page.locator("#money")).to_be_hidden()
    await expect(page.get_by_role("columnheader", name="cost, USD")).to_have_count(0)
    await page.get_by_role("button", name="Only decide").click()
    await expect(page.locator("#explained tbody tr")).to_have_count(1)
    await expect(page.get_by_role("region", name="Placement")).to_have_count(0)
