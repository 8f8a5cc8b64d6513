"""The console in a real Chromium: what it shows, in each state, to whom, and that nothing is wrong with it on the way."""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, RULES, TOKEN, Server, free_port
from playwright.sync_api import expect, sync_playwright

HOSTILE = "<img src=x onerror=alert(1)>\u202e{{7*7}}"
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = shutil.which("chromium")
        assert found, "chromium is not there: run `scripts/setup console`"
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the console; at the end nothing was said on the JavaScript console, and nothing was asked off its origin."""
    wrong, contexts = [], []

    def open_page(path="", expected=(), headers=None, **options):
        context = browser.new_context(extra_http_headers=headers or {}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)

        def said(message):
            if message.type in ("error", "warning") and not any(text in message.text for text in expected):
                wrong.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"a script ran: {dialog.message}"))
        page.on("request", lambda request: request.url.startswith(server.base) or wrong.append(request.url))
        page.goto(f"{server.base}/console/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def attack(server):
    server.ask([("user", HOSTILE)], 30)
    server.ask([("path", "/login"), ("remote_address", "10.0.0.1")], 8)
    server.ask([("tenant", "acme")], 15)


def accessible(page):
    results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert results.violations_count == 0, results.generate_report()


def fits(page):
    """Nothing is wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_every_page_is_accessible_and_fits(server, open_page, scheme, width):
    attack(server)
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    expect(page.get_by_role("link", name="onerror")).to_be_visible()
    accessible(page), fits(page)
    page.get_by_role("link", name="onerror").click()
    expect(page.get_by_text("20 of 20")).to_be_visible()
    accessible(page), fits(page)
    for name, text in [("Rules", "path_/login.remote_address"), ("Replica", "Loads of rules"), ("Leases", "No Envoy enforces")]:
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_text(text).first).to_be_visible()
        accessible(page), fits(page)


def test_an_empty_server_says_what_to_do_and_hostile_values_are_text(server, open_page):
    page = open_page()
    expect(page.get_by_text("No decisions in this window")).to_be_visible()
    accessible(page)
    attack(server)
    link = page.get_by_role("link", name="onerror")
    expect(link).to_have_text(f"user={HOSTILE}".replace("\u202e", "\\u{202e}"))
    # Shadow mode denies nobody.
    expect(page.get_by_text("tenant=acme")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("10.0.0.1")
    expect(link).to_have_count(0)
    expect(page.get_by_role("link", name="remote_address=10.0.0.1")).to_be_visible()
    page.get_by_label("Filter keys").fill("nobody")
    expect(page.get_by_text("fits the filter")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    expect(page.get_by_text("6 rules, generation 1")).to_be_visible()


def test_leases_say_which_envoy_holds_how_much(browser, tmp_path):
    server = Server(tmp_path, rules=(ROOT / "deploy/rlqs/rules.yaml").read_text())
    envoy = None
    try:
        context = browser.new_context(color_scheme="light")
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{server.base}/console/#/leases")
        expect(page.get_by_text("No Envoy enforces quotas itself")).to_be_visible()
        accessible(page)
        port, envoy = start_rlqs_envoy(tmp_path, server.grpc)
        # Counters in memory are leased from some seconds after they began; each request asks again for a new user.
        server.wait(lambda: asked(port, HOSTILE.encode("ascii", "ignore").decode()))
        row = page.get_by_role("row", name="onerror")
        expect(row).to_be_visible()
        expect(row).to_contain_text("user=<img src=x")
        expect(row).to_contain_text("edge-1")
        accessible(page)
        page.set_viewport_size({"width": 360, "height": 900})
        fits(page)
        page.get_by_label("Filter leases").fill("nobody")
        expect(page.get_by_text("No lease fits the filter")).to_be_visible()
        envoy.terminate()
        expect(page.get_by_text("No Envoy enforces quotas itself")).to_be_visible()
    finally:
        if envoy:
            envoy.kill()
        server.stop()


def start_rlqs_envoy(directory, service):
    """An Envoy with the shipped configuration; its port, and the process."""
    port, admin, upstream = free_port(), free_port(), free_port()
    config = (ROOT / "deploy/rlqs/envoy.yaml").read_text()
    for before, after in [(10003, port), (9903, admin), (10004, upstream), (8081, service)]:
        config = config.replace(f"port_value: {before}", f"port_value: {after}")
    file = directory / "envoy.yaml"
    file.write_text(config)
    binary = os.environ.get("ENVOY_BIN", ROOT / ".venv/bin/envoy")
    log = (directory / "envoy.log").open("w")
    command = [binary, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    return port, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def asked(port, user):
    """Whether a request of this user was answered 200."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"x-user": user})
    try:
        return urllib.request.urlopen(request, timeout=5).status == 200
    except urllib.error.HTTPError as error:
        assert error.code == 429, error
        return False


def test_everything_is_reached_by_the_keyboard(server, open_page):
    attack(server)
    page = open_page(color_scheme="light")
    link = page.get_by_role("link", name="onerror")
    expect(link).to_be_visible()
    # The first stop leads past the navigation.
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    for key, name, text in [("3", "Replica", "Loads of rules"), ("2", "Rules", "6 rules"), ("4", "Leases", "No Envoy enforces"), ("1", "Now", "Who is denied")]:
        page.keyboard.press(key)
        expect(page.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "page")
        expect(page.get_by_text(text).first).to_be_visible()
    for theme in ["dark", "light"]:
        page.keyboard.press("t")
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
    # In a field keys are text, until Escape.
    page.keyboard.press("/")
    expect(page.get_by_label("Filter keys")).to_be_focused()
    page.keyboard.type("2t")
    expect(page.get_by_label("Filter keys")).to_have_value("2t")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.get_by_label("Filter keys").fill("")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Filter keys")).not_to_be_focused()
    # From the filter over the two choices and the table to the first key; the table is drawn anew all the while.
    page.keyboard.press("/")
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')?.startsWith('#/key/') ?? false"):
            break
    first = page.locator("tbody a").first
    expect(first).to_be_focused()
    for _ in range(2):
        with page.expect_response(lambda answer: "/api/v1/top" in answer.url):
            pass
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("used; the limit is")).to_be_visible()


def test_a_key_is_explained(server, open_page):
    attack(server)
    page = open_page()
    page.get_by_role("link", name="onerror").click()
    expect(page.get_by_text("denied for another")).to_be_visible()
    expect(page.get_by_text("this process' memory")).to_be_visible()
    expect(page.get_by_text("rules.yaml:5")).to_be_visible()
    expect(page.get_by_text("matches by its key alone")).to_be_visible()


def test_a_key_that_is_not_listed_is_found_by_its_name(server, open_page):
    attack(server)
    page = open_page()
    expect(page.get_by_role("link", name="onerror")).to_be_visible()
    # What is listed has its time line.
    expect(page.locator("tbody tr svg.spark").first).to_be_visible()
    page.get_by_label("Filter keys").fill("user=zoe")
    expect(page.get_by_text("found by its name, below")).to_be_visible()
    expect(page.get_by_label("Key: its entries")).to_have_value("user=zoe")
    expect(page.get_by_label("Domain")).to_have_value("shop")
    accessible(page)
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_text("0 of 20")).to_be_visible()
    expect(page.get_by_text("Not among the frequent keys")).to_be_visible()
    accessible(page)
    page.go_back()
    # Several entries, with values that hold what separates them; and one that is listed has its last hour.
    page.get_by_label("Key: its entries").fill("path=/login|remote_address=10.0.0.1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="path=/login remote_address=10.0.0.1")).to_be_visible()
    expect(page.get_by_text("3 of 3")).to_be_visible()
    expect(page.get_by_text("8 decisions, 5 denied")).to_be_visible()
    # The chart says how many and when.
    expect(page.locator(".plot .x")).to_contain_text("ago")
    expect(page.locator(".plot .x")).to_contain_text("now")
    expect(page.locator(".plot .y")).to_contain_text("/")
    page.go_back()
    page.get_by_label("Key: its entries").fill("user=a%7Cb%3Dc")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="user=a|b=c")).to_be_visible()
    page.go_back()
    page.get_by_label("Domain").fill("nobody")
    page.get_by_label("Key: its entries").fill("user=alice")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No rules have this domain")).to_be_visible()
    accessible(page), fits(page)


def test_a_key_found_by_its_name_is_let_through_again(server, open_page):
    attack(server)
    page = open_page("#/key/of?domain=shop&key=path&value=%2Flogin&key=remote_address&value=10.0.0.1", expected=["401"])
    expect(page.get_by_text("3 of 3")).to_be_visible()
    page.get_by_role("button", name="Reset …").click()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    page.get_by_role("button", name="Reset it").click()
    expect(page.get_by_text("3 hits were in use")).to_be_visible()
    expect(page.get_by_text("0 of 3")).to_be_visible()


def test_rules_are_ordered_by_denials_and_found_by_their_domain(browser, tmp_path):
    other = "domain: books\ndescriptors:\n  - key: reader\n    rate_limit: { unit: hour, requests_per_unit: 1 }\n"
    server = Server(tmp_path)
    (tmp_path / "rules").mkdir()
    try:
        server.stop()
        (tmp_path / "rules/shop.yaml").write_text(RULES), (tmp_path / "rules/books.yaml").write_text(other)
        server.rules = tmp_path / "rules"
        server.start()
        server.ask([("path", "/login"), ("remote_address", "10.0.0.1")], 8)
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{server.base}/console/#/rules")
        expect(page.get_by_text("7 rules")).to_be_visible()
        page.get_by_label("Order").select_option("denied")
        first = page.locator("tbody tr").first
        expect(first).to_contain_text("path_/login.remote_address")
        expect(first).to_contain_text("domain shop")
        accessible(page)
        page.get_by_label("Filter rules").fill("books")
        expect(page.get_by_text("1 rule,")).to_be_visible()
        expect(first).to_contain_text("reader")
    finally:
        server.stop()


def test_bad_rules_are_told_at_once_with_their_place(server, open_page):
    page = open_page()
    expect(page.get_by_text("healthy", exact=True)).to_be_visible()
    server.rules.write_text(RULES.replace("unit: hour", "unit: fortnight"))
    expect(page.get_by_text("New rules were refused")).to_be_visible()
    page.get_by_role("link", name="All errors").click()
    expect(page.locator("pre")).to_contain_text('unknown unit "fortnight"')
    accessible(page)
    server.rules.write_text(RULES)
    expect(page.get_by_text("New rules were refused")).to_have_count(0)


def test_numbers_that_are_zero_are_shown_when_they_are_asked_for(server, open_page):
    page = open_page("#/replica")
    expect(page.get_by_role("cell", name="config_rules")).to_be_visible()
    closed = page.get_by_role("cell", name="connections_closed_total").first
    expect(closed).to_have_count(0)
    page.get_by_label("zeros, too").check()
    expect(closed).to_be_visible()
    accessible(page)


def test_a_stranger_is_asked_for_the_token(server, open_page):
    page = open_page(expected=["401"], headers={"x-forwarded-for": "10.9.8.7"})
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    # Nothing is wrong yet.
    expect(page.get_by_text("is needed")).to_have_count(0)
    accessible(page)
    page.get_by_label("Token", exact=True).fill("wrong-wrong-wrong-wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("this is not the admin token")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("No decisions in this window")).to_be_visible()
    expect(dialog).to_be_hidden()


def test_a_wrong_token_keeps_nobody_from_what_needs_none(server, open_page):
    attack(server)
    page = open_page(expected=["401"])
    page.get_by_role("link", name="onerror").click()
    page.get_by_role("button", name="Reset …").click()
    page.get_by_label("Token", exact=True).fill("wrong-wrong-wrong-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("this is not the admin token")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("1")
    expect(page.get_by_role("link", name="onerror")).to_be_visible()
    page.wait_for_timeout(2500)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_answer_for_a_page_that_was_left_is_not_shown(server, open_page):
    attack(server)
    page = open_page()
    page.route("**/api/v1/explain", lambda route: (time.sleep(1), route.continue_()))
    page.get_by_role("link", name="onerror").click()
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.wait_for_timeout(1500)
    expect(page.get_by_role("button", name="Reset …")).to_have_count(0)
    expect(page.get_by_role("link", name="onerror")).to_be_visible()


def test_a_key_is_let_through_again(server, open_page):
    attack(server)
    page = open_page(expected=["401"])
    page.get_by_role("link", name="onerror").click()
    expect(page.get_by_text("20 of 20")).to_be_visible()
    page.get_by_role("button", name="Reset …").click()
    # Reading from here needs no token, a change does; what was asked for goes on by itself.
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    confirm = page.get_by_role("dialog", name="Reset this key?")
    expect(confirm).to_contain_text("has 20 hits in use")
    accessible(page), fits(page)
    # Whoever hits Enter without reading has changed nothing.
    page.keyboard.press("Enter")
    expect(confirm).to_be_hidden()
    expect(page.get_by_text("20 of 20")).to_be_visible()
    page.get_by_role("button", name="Reset …").click()
    confirm.get_by_role("button", name="Reset it").click()
    expect(page.get_by_text("20 hits were in use")).to_be_visible()
    expect(page.get_by_text("0 of 20")).to_be_visible()
    accessible(page), fits(page)
    assert "an operator has reset counters" in server.log.read_text()


def test_it_comes_back_after_the_server_restarts(server, open_page):
    page = open_page(expected=["ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE"])
    expect(page.get_by_text("healthy", exact=True)).to_be_visible()
    server.stop()
    expect(page.get_by_text("The server does not answer")).to_be_visible()
    accessible(page)
    server.start()
    expect(page.get_by_text("healthy", exact=True)).to_be_visible()
    expect(page.get_by_text("The server does not answer")).to_have_count(0)


def test_ten_thousand_rules_are_paged(browser, tmp_path):
    rules = [f"  - {{ key: k{n}, rate_limit: {{ unit: minute, requests_per_unit: {n % 90 + 1} }} }}" for n in range(10_000)]
    server = Server(tmp_path, rules="domain: shop\ndescriptors:\n" + "\n".join(rules) + "\n")
    try:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{server.base}/console/#/rules")
        expect(page.get_by_text("10000 rules")).to_be_visible()
        assert page.locator("tbody tr").count() <= 202
        page.get_by_role("button", name="Next").click()
        expect(page.get_by_text("201 to 400 of 10000")).to_be_visible()
        page.get_by_label("Filter rules").fill("k9999")
        expect(page.get_by_text("1 rule,")).to_be_visible()
    finally:
        server.stop()


def test_redis_away_is_said_with_what_it_means(browser, tmp_path):
    # Nobody listens there.
    server = Server(tmp_path, "--redis-url=redis://127.0.0.1:1")
    try:
        server.ask([("user", "alice")], 10)
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{server.base}/console/")
        expect(page.get_by_text("redis does not answer. Failure mode local")).to_be_visible()
        accessible(page)
    finally:
        server.stop()
