"""The page at `/`, in Chromium by playwright."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'dev-browser'")

from serving import LONG, PATIENCE, TEXT, Running, running  # noqa: E402

from qwen3tts_gguf import TTS  # noqa: E402
from qwen3tts_gguf.server.answer import SpeechResponse  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright.expect.set_options(timeout=60_000)  # a busy machine is slow, not wrong
CLIP = Path(__file__).parents[1] / "models" / "voices" / "ken.flac"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    """Open at a phone's width; fails the test on any error the browser reports, those of the CSP too."""
    context = browser.new_context(viewport={"width": 375, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(server.url)
    playwright.expect(page.locator("#model")).to_contain_text("ready")
    page.expected_errors = []
    yield page
    context.close()
    assert [error for error in errors if not any(part in error for part in page.expected_errors)] == []


def speak(page: Any, text: str, seed: str = "") -> None:
    page.fill("#text", text)
    page.fill("#seed", seed)
    page.click("#speak")


def test_the_speech_is_played_while_it_is_made(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, send, n_sent = threading.Event(), SpeechResponse._send, 0

    async def held(self: SpeechResponse, *message: Any, **more: Any) -> None:
        nonlocal n_sent
        n_sent += 1
        if n_sent == 60:
            await asyncio.to_thread(may_go_on.wait, PATIENCE)
        await send(self, *message, **more)

    monkeypatch.setattr(SpeechResponse, "_send", held)
    loud = """() => {
        const meter = window.qwen3tts.meter();
        if (!meter) return false;
        const samples = new Float32Array(meter.fftSize);
        meter.getFloatTimeDomainData(samples);
        return Math.max(...samples) > 0.02;
    }"""
    speak(page, f"{LONG} {LONG}")
    page.wait_for_function(loud)
    playwright.expect(page.locator("#state")).to_have_text("Speaking.")
    assert page.is_enabled("#stop") and page.is_hidden("#download")  # the rest has not been sent
    may_go_on.set()
    page.click("#stop")


def test_every_sample_arrives_and_is_drawn_kept_and_replayed(page: Any, server: Running) -> None:
    speak(page, TEXT, "7")
    playwright.expect(page.locator("#state")).to_have_text("Done.")
    direct = server.speak(TEXT, seed=7, response_format="pcm").content
    assert page.evaluate("window.qwen3tts.samplesPlayed") == len(direct) // 2
    assert page.inner_text("#fact-seed") == "7"
    assert page.inner_text("#fact-length") == f"{len(direct) / 48000:.2f} s"
    for fact in ("#fact-first", "#fact-factor"):
        assert float(page.inner_text(fact).removesuffix(" s")) > 0
    drawn = """() => {
        const wave = document.getElementById("wave");
        return wave.getContext("2d").getImageData(0, 0, wave.width, wave.height).data.some((value) => value > 0);
    }"""
    assert page.evaluate(drawn)
    with page.expect_download() as download:
        page.click("#download")
    with wave.open(str(download.value.path())) as file:
        assert file.getframerate() == 24000 and file.readframes(file.getnframes()) == direct
    page.click("#replay")
    page.wait_for_timeout(100)


def test_stop_frees_the_lane(page: Any, server: Running) -> None:
    speak(page, " ".join([LONG] * 8))
    playwright.expect(page.locator("#state")).to_have_text("Speaking.")
    page.click("#stop")
    playwright.expect(page.locator("#state")).to_have_text("Stopped.")
    server.wait_until(lambda: server.is_free)
    assert page.is_disabled("#stop")


def test_it_works_by_keyboard_alone(page: Any) -> None:
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("Yes.")
    page.keyboard.press("Control+Enter")
    playwright.expect(page.locator("#state")).to_have_text("Done.")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"voice", "language", "seed", "speak", "replay", "download", "name", "clip", "record", "save"} <= reached


def test_every_field_has_a_name_for_screen_readers(page: Any) -> None:
    unnamed = """() => [...document.querySelectorAll("input, textarea, select, button")]
        .filter((field) => !field.labels?.length && !field.textContent.trim()).map((field) => field.id)"""
    assert page.evaluate(unnamed) == []
    roles = page.eval_on_selector_all("[role]", "all => all.map((one) => `${one.id}:${one.getAttribute('role')}`)")
    assert {"problem:alert", "state:status", "wave:img"} <= set(roles)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_is_cut_off_and_contrast_is_enough(page: Any, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = """() => [...document.querySelectorAll("button, .button, textarea, select")]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 40).map((one) => one.id)"""
    assert page.evaluate(small) == []
    for selector in ("body", "#model", "#seed-help", "#speak"):
        assert _contrast(page, selector) >= 4.5, selector


def _contrast(page: Any, selector: str) -> float:
    """WCAG 2: of the text against the nearest ground that is not transparent."""
    colors = """(one) => {
        const text = getComputedStyle(one).color;
        while (getComputedStyle(one).backgroundColor === "rgba(0, 0, 0, 0)") one = one.parentElement;
        return [text, getComputedStyle(one).backgroundColor];
    }"""

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(luminance(color) for color in page.eval_on_selector(selector, colors))
    return (light + 0.05) / (dark + 0.05)


def test_what_the_server_refuses_is_shown(page: Any) -> None:
    page.expected_errors = ["400"]
    speak(page, "...")
    playwright.expect(page.locator("#problem")).to_contain_text("nothing to pronounce")
    page.fill("#text", "")
    page.click("#speak")
    playwright.expect(page.locator("#problem")).to_have_text("Type a text first.")
    speak(page, "Yes.")
    playwright.expect(page.locator("#state")).to_have_text("Done.")
    assert page.is_hidden("#problem")


def test_a_voice_is_uploaded_spoken_with_and_deleted(page: Any) -> None:
    page.click("#save")
    playwright.expect(page.locator("#upload-state")).to_have_text("Give the voice a name.")
    page.fill("#name", "Anna two")
    page.set_input_files("#clip", CLIP)
    page.click("#save")
    playwright.expect(page.locator("#upload-state")).to_have_text("The owner of the voice must agree.")
    page.check("#consent")
    page.click("#save")
    playwright.expect(page.locator("#upload-state")).to_contain_text("Saved")
    playwright.expect(page.locator("#voice")).to_have_value("Anna two")
    speak(page, TEXT, "7")
    playwright.expect(page.locator("#state")).to_have_text("Done.")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    playwright.expect(page.locator("#upload-state")).to_have_text("Deleted: Anna two.")
    playwright.expect(page.locator("#voice")).to_have_value("")


def test_a_voice_is_recorded_on_localhost(page: Any) -> None:
    page.click("#record")
    playwright.expect(page.locator("#record")).to_have_text("Stop recording")
    page.wait_for_timeout(4000)  # the fake microphone beeps
    page.click("#record")
    playwright.expect(page.locator("#record-help")).to_contain_text("recorded")
    seconds = float(page.inner_text("#record-help").split(" ")[0])
    assert seconds > 1  # a busy machine loses some
    page.fill("#name", "Beeps")
    page.check("#consent")
    page.click("#save")
    playwright.expect(page.locator("#upload-state")).to_contain_text("Saved")


def test_on_plain_http_in_a_network_it_speaks_and_says_why_it_cannot_record(browser: Any, server: Running) -> None:
    """Another name than localhost is no secure context, as an address in a LAN is none."""
    context = browser.new_context()
    page = context.new_page()
    port = server.url.rpartition(":")[2]
    page.route(
        "http://speech.lan/**",
        lambda route: route.fulfill(
            response=route.fetch(
                url=route.request.url.replace("http://speech.lan", server.url),
                headers={**route.request.headers, "host": f"127.0.0.1:{port}", "origin": server.url},
            )
        ),
    )
    page.goto("http://speech.lan/")
    playwright.expect(page.locator("#record")).to_be_disabled()
    playwright.expect(page.locator("#record-help")).to_contain_text("only on https pages and on localhost")
    speak(page, TEXT)
    playwright.expect(page.locator("#state")).to_have_text("Done.")
    context.close()


def test_a_page_of_another_origin_speaks_where_it_is_let_in(browser: Any, nano: TTS, tmp_path: Path) -> None:
    """With a key and a JSON body, so that the browser asks first."""
    speak = """async (url) => {
        const headers = { Authorization: "Bearer none", "Content-Type": "application/json" };
        const body = JSON.stringify({ input: "Yes.", response_format: "pcm" });
        const answer = await fetch(url + "/v1/audio/speech", { method: "POST", headers, body });
        return [answer.headers.get("X-Qwen3tts-Seed"), (await answer.arrayBuffer()).byteLength];
    }"""
    (tmp_path / "index.html").write_text("<p>a page</p>", "utf-8")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        threading.Thread(target=pages.serve_forever).start()
        origin = f"http://127.0.0.1:{pages.server_port}"
        context = browser.new_context()
        page = context.new_page()
        page.goto(origin)
        with running(tmp_path / "a", nano, cors_origins=(origin,)) as open_to_it:
            seed, n_bytes = page.evaluate(speak, open_to_it.url)
            assert int(seed) >= 0 and n_bytes > 10_000
        with running(tmp_path / "b", nano) as closed, pytest.raises(playwright.Error, match="Failed to fetch"):
            page.evaluate(speak, closed.url)
        context.close()
        pages.shutdown()


def test_nothing_comes_from_another_host(browser: Any, server: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(server.url)
    playwright.expect(page.locator("#model")).to_contain_text("ready")
    assert asked and all(url.startswith((server.url, "data:")) for url in asked)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    context.close()
