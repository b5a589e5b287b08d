"""Accessibility of the page: keyboard, screen reader, phone, dark theme; and its screenshots."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Visit = Callable[..., Page]
expect.set_options(timeout=60_000)

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(visit: Visit, scheme: str, device: dict[str, object]) -> None:
    page = visit(color_scheme=scheme, **device)
    notes = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"milk"}
    for before in (
        lambda: None,
        page.get_by_role("switch", name="Auto").check,
        lambda: page.locator("#file").set_input_files(notes),  # type: ignore[arg-type]
    ):
        before()
        expect(page.locator("#pending")).to_be_hidden()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    keys = page.keyboard
    keys.press("Tab")
    expect(page.get_by_role("link", name="Skip to the dial")).to_be_focused()
    keys.press("Enter")
    keys.press("Tab")  # a link to a place moves where the next Tab goes
    if page.evaluate("document.activeElement.id") != "ratio":
        keys.press("Shift+Tab")
    expect(page.locator("#ratio")).to_be_focused()
    keys.press("Home")
    expect(page.locator("#figures")).to_contain_text("196 of 196")
    keys.press("End")
    expect(page.locator("#figures")).to_contain_text("25 of 196")
    keys.press("Shift+Tab")
    expect(page.get_by_role("switch", name="Auto")).to_be_focused()
    keys.press("Space")
    expect(page.locator("#ratio-meaning")).to_contain_text("chosen by the server")
    expect(page.locator("#ratio-value")).not_to_have_text(
        "…"
    )  # the server's ratio moves the dial from its end
    keys.press("Tab")
    keys.press("End")
    expect(page.locator("#figures")).to_contain_text("25 of 196")
    page.locator("#stage").focus()
    keys.press("Home")
    expect(page.locator("#stage-text")).to_contain_text("all 196 patches")
    page.locator("#patches").focus()
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    expect(page.locator("#patch")).to_contain_text("Row 8, column 9:")
    page.get_by_role("button", name="Sample: church").focus()
    keys.press("Enter")
    expect(page.locator("#label")).to_have_text("church")


def test_every_focused_control_has_a_focus_outline(page: Page) -> None:
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, marked = page.evaluate(
            """() => { const here = document.activeElement;
                const shown = here.matches("[type=radio]") ? here.nextElementSibling
                    : here.matches("[type=file]") ? here.parentElement : here;
                const marked = getComputedStyle(shown).outlineStyle !== "none";
                const name = here.id || here.textContent.trim() || here.title;
                return [name, here === document.body || marked]; }"""
        )
        reached.add(name)
        assert marked, name
    assert {
        "ratio",
        "auto",
        "stage",
        "patches",
        "play",
        "file",
        "measure",
        "clients",
        "load-button",
        "theme",
    } <= reached


def test_changes_are_announced_to_screen_readers(page: Page) -> None:
    with page.expect_response(lambda r: "explain=true" in r.url) as sent:
        page.get_by_role("button", name="Limit").click()
    answer = sent.value.json()
    saved = round(100 * answer["reduction"]["macs_saved"])
    score = 100 * answer["predictions"][0]["score"]
    expect(page.locator("#announce")).to_have_text(
        f"golf ball, {score:.1f}\u202f%. The unreduced model says the same. "
        f"87.2\u202f% of the tokens removed, {saved}\u202f% of the work saved."
    )
    expect(page.locator("#ratio")).to_have_attribute("aria-valuetext", "87.2\u202f%")


def test_nothing_is_cut_off_at_the_side(page: Page) -> None:
    needed = {}
    for width in (320, 360, 390, 768, 919, 920, 1024, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        needed[width] = page.evaluate("document.documentElement.scrollWidth")
    assert {width: need for width, need in needed.items() if need > width} == {}


def test_the_hint_says_tap_on_a_phone_and_point_with_a_mouse(page: Page, visit: Visit) -> None:
    expect(page.locator("#patch")).to_have_text(
        "Point at a patch to see its way through the model.", use_inner_text=True
    )
    phone = visit(**PHONE)
    expect(phone.locator("#patch")).to_have_text(
        "Tap a patch to see its way through the model.", use_inner_text=True
    )


def test_on_a_phone_the_dial_stays_in_view_beside_the_map_and_beside_the_answer(visit: Visit) -> None:
    page = visit(**PHONE)
    for place in ("#map", "#top"):
        page.locator(place).evaluate("element => element.scrollIntoView({ block: 'center' })")
        expect(page.locator("#ratio")).to_be_in_viewport(ratio=1)
        expect(page.locator("#auto")).to_be_in_viewport(ratio=1)
        expect(page.locator("#dial-verdict")).to_contain_text("golf ball")
        expect(page.locator("#dial-verdict")).to_be_in_viewport(ratio=1)
    height = page.locator("#dial").evaluate("element => element.offsetHeight")
    assert height < 0.13 * 844, "it took a fifth of the screen"


def test_the_choice_of_colours_is_kept(visit: Visit) -> None:
    page = visit(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for name in ("Change to light", "Change to dark"):
        page.get_by_role("button", name=name).click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


@pytest.mark.parametrize(
    ("device", "scheme"),
    [
        ("desktop", "light"),
        *(
            pytest.param(*other, marks=pytest.mark.nightly)
            for other in (("desktop", "dark"), ("phone", "light"), ("phone", "dark"))
        ),
    ],
)
def test_a_picture_of_the_page_can_be_taken(visit: Visit, tmp_path: Path, device: str, scheme: str) -> None:
    """With PRUNEPOOL_SCREENSHOTS set to a folder, the pictures of the documentation are written there."""
    kept = os.environ.get("PRUNEPOOL_SCREENSHOTS")
    page = visit(color_scheme=scheme, **(DESKTOP if device == "desktop" else PHONE))
    page.get_by_role("button", name="Sample: church").click()
    expect(page.locator("#label")).to_have_text("church")
    expect(page.locator("#agreement")).to_be_visible()
    if kept:  # a picture shows the charts at work, with a load that any machine bears, and no times
        page.locator("#clients").select_option("4")
        page.get_by_role("button", name="Send load").click()
        expect(page.locator("#load-text")).to_contain_text("answered in", timeout=90_000)
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    if device == "phone":
        page.locator("#photos").evaluate("element => scrollTo(0, element.getBoundingClientRect().top - 24)")
    taken = Image.open(io.BytesIO(page.screenshot(full_page=device == "desktop"))).convert("RGB")
    name = f"page-{device}{'-dark' if scheme == 'dark' else ''}.webp"
    written = Path(kept or tmp_path) / name
    taken.save(written, quality=95, method=6)
    assert 50_000 < written.stat().st_size < 300_000
