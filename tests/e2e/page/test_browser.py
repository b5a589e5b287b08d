"""The page as a user sees it: photos, dial, map, answer, and errors."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Visit = Callable[..., Page]
expect.set_options(timeout=60_000)


def turn_to(page: Page, ratio: float) -> None:
    """Turn the dial, and wait for the answer there."""
    with page.expect_response(lambda r: f"reduction_ratio={ratio}" in r.url) as sent:
        page.locator("#ratio").fill(str(ratio))
    assert sent.value.ok
    expect(page.locator("#pending")).to_be_hidden()


def figure(page: Page, name: str) -> str:
    """The text of one of the answer's figures."""
    text = page.locator("#figures > div", has=page.get_by_text(name, exact=True)).inner_text()
    return text.replace("\u202f", " ")


def jpeg(colour: str = "navy", size: tuple[int, int] = (320, 240), kind: str = "JPEG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, colour).save(made, kind)
    return made.getvalue()


def test_the_first_visit_shows_a_sample_its_answer_and_that_of_the_full_model(page: Page) -> None:
    expect(page.locator("#label")).to_have_text("golf ball")
    expect(page.locator("#agreement")).to_have_text("same as unreduced")
    rows = page.locator("#top tr")
    expect(rows).to_have_count(5)
    for cell in (".at-dial", ".at-dense"):
        expect(rows.first.locator(cell)).to_contain_text(re.compile(r"9\d\.\d|>"))
    assert "48 of 196" in figure(page, "Tokens left")
    assert figure(page, "Time in the model").split("\n")[1:] == ["–", "not compared yet"], (
        "one run says nothing"
    )


@pytest.mark.parametrize("name", ["golf ball", "parachute", "church", "gas pump"])
def test_every_sample_is_classified_right_at_both_ends_of_the_dial(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Sample: {name}").click()
    for ratio in (0, 0.875):
        page.locator("#ratio").fill(str(ratio))
        expect(page.locator("#pending")).to_be_hidden()
        expect(page.locator("#label")).to_have_text(name)
        expect(page.locator("#agreement")).to_have_text("same as unreduced")


def test_the_dial_spends_the_gmacs_of_the_plan(page: Page, site: str) -> None:
    model = httpx.get(f"{site}/models/deit_tiny_imagenet1k").json()
    for plan in (p for p in model["plans"] if p["reduction_ratio"] in (0.0, 0.3, 0.7)):
        page.locator("#ratio").fill(str(plan["reduction_ratio"]))
        left = plan["tokens"][-1] - 1
        expect(page.locator("#figures")).to_contain_text(f"{left} of 196")
        assert f"{plan['gmacs']:.2f}".rstrip("0") in figure(page, "Work")


def test_the_dial_goes_to_the_models_limit_and_says_so(page: Page, site: str) -> None:
    limit = httpx.get(f"{site}/models/deit_tiny_imagenet1k").json()["max_reduction_ratio"]
    with page.expect_response(lambda r: "/classify" in r.url) as sent:
        page.get_by_role("button", name="Limit").click()
    assert sent.value.json()["reduction"]["requested"] == pytest.approx(limit)
    expect(page.locator("#ratio-value")).to_have_text(f"{100 * limit:.1f}\u202f%")
    expect(page.locator("#figures")).to_contain_text("25 of 196")


def test_auto_shows_the_ratio_that_the_server_applied(page: Page) -> None:
    with page.expect_response(lambda r: "reduction_ratio=auto" in r.url) as sent:
        page.get_by_role("switch", name="Auto").check()
    applied = sent.value.json()["reduction"]["applied"]
    expect(page.locator("#ratio-value")).to_have_text(f"{100 * applied:.1f}\u202f%".replace(".0", ""))
    expect(page.locator("#ratio-meaning")).to_contain_text("chosen by the server")
    page.locator("#ratio").fill("0.3")
    expect(page.get_by_role("switch", name="Auto")).not_to_be_checked()


def test_with_auto_the_answer_follows_the_servers_ratio(visit: Visit) -> None:
    series = 'prunepool_auto_reduction_ratio{model="deit_tiny_imagenet1k"} '
    moved = {"to": None}

    def meddle(route: Route) -> None:
        text = route.fetch().text()
        if moved["to"]:
            text = re.sub(re.escape(series) + r"\S+", series + moved["to"], text)
        route.fulfill(body=text, content_type="text/plain")

    page = visit(first=lambda p: p.route("**/metrics", meddle))
    with page.expect_response(lambda r: "reduction_ratio=auto" in r.url):
        page.get_by_role("switch", name="Auto").check()
    expect(page.locator("#ratio-meaning")).to_contain_text("chosen by the server")
    page.route("**/classify?*", lambda route: route.fulfill(status=503, json={"status": 503}), times=1)
    with page.expect_response(lambda r: r.status == 503):
        moved["to"] = "0.8"
    with page.expect_response(lambda r: "reduction_ratio=auto" in r.url and r.ok):
        pass  # refused once, asked again by itself
    expect(page.locator(".tile .auto b")).to_have_text("80\u202f%")
    expect(page.locator("#notice")).to_be_hidden()


def test_the_stages_show_the_token_map_of_the_server(page: Page) -> None:
    with page.expect_response(lambda r: "explain=true" in r.url) as sent:
        page.locator("#ratio").fill("0.7")
    told = sent.value.json()["token_map"]
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("max", str(len(told["stages"])))
    pruned: set[int] = set()
    for i, known in enumerate([None, *told["stages"]]):
        stage.fill(str(i))
        groups = [[patch] for patch in range(196)] if known is None else known["groups"]
        pruned |= set() if known is None else set(known["pruned"])
        classes = page.locator("#patches .cell").evaluate_all("all => all.map(c => c.classList[1])")
        assert {p for p, kind in enumerate(classes) if kind == "pruned"} == pruned
        alone = {group[0] for group in groups if len(group) == 1}
        assert {p for p, kind in enumerate(classes) if kind == "kept"} == alone
        expect(page.locator("#patches .group")).to_have_count(len(groups) - len(alone))
    expect(page.locator("#stage-text")).to_contain_text(f"Block {told['stages'][-1]['block']}")


def test_a_patch_is_described_with_its_events(page: Page) -> None:
    with page.expect_response(lambda r: "explain=true" in r.url) as sent:
        page.locator("#ratio").fill("0.7")
    expect(page.locator("#pending")).to_be_hidden()
    told = sent.value.json()["token_map"]
    first = next(stage for stage in told["stages"] if stage["action"].startswith("pool"))
    group = max(first["groups"], key=len)
    box = page.locator("#patches").bounding_box()
    assert box
    row, column = divmod(group[0], 14)
    page.locator("#patches").hover(
        position={"x": (column + 0.5) * box["width"] / 14, "y": (row + 0.5) * box["height"] / 14}
    )
    said = page.locator("#patch")
    expect(said).to_contain_text(f"Row {row + 1}, column {column + 1}")
    expect(said).to_contain_text(f"pooled with {len(group) - 1} other")
    expect(said).to_contain_text(f"at block {first['block']}")


def test_the_stages_play_unless_the_user_prefers_reduced_motion(visit: Visit) -> None:
    page = visit(reduced_motion="no-preference")
    expect(page.locator("#stage")).to_have_js_property("value", "8")
    page.get_by_role("button", name="Play the stages").click()
    expect(page.locator("#stage")).to_have_js_property("value", "0")
    expect(page.locator("#stage")).to_have_js_property("value", "8")


def test_the_map_can_be_shown_as_mean_colours_or_not_at_all(page: Page) -> None:
    page.get_by_role("radio", name="Means").check()
    kept = page.locator("#patches .cell.kept").first
    expect(kept).to_have_css("fill-opacity", "1")
    page.get_by_role("radio", name="Photo").check()
    expect(kept).to_be_hidden()


def test_a_photo_can_be_chosen(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "sea.jpg", "mimeType": "image/jpeg", "buffer": jpeg()})
    expect(page.get_by_role("button", name="sea.jpg")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#crop")).to_have_attribute("aria-label", "sea.jpg, as the model sees it")
    expect(page.locator("#agreement")).to_be_visible()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_photos_can_be_dropped_and_pasted(page: Page, event: str) -> None:
    page.evaluate(
        """([event, photos]) => {
            const data = new DataTransfer();
            photos.forEach(([name, text]) => data.items.add(new File(
                [Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: "image/jpeg" })));
            const init = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "drop"
                ? new DragEvent("drop", { ...init, dataTransfer: data })
                : new ClipboardEvent("paste", { ...init, clipboardData: data }));
        }""",
        [event, [[f"{c}.jpg", base64.b64encode(jpeg(c)).decode()] for c in ("red", "blue")]],
    )
    expect(page.get_by_role("button", name="red.jpg")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="blue.jpg")).to_be_visible()


def test_a_format_that_the_browser_cannot_show_is_still_classified(page: Page) -> None:
    tiff = {"name": "scan.tif", "mimeType": "image/tiff", "buffer": jpeg(kind="TIFF")}
    page.locator("#file").set_input_files(tiff)  # type: ignore[arg-type]
    expect(page.locator("#crop")).to_have_attribute("aria-label", "scan.tif, as the model sees it")
    expect(page.locator("#figures")).to_contain_text("48 of 196")
    expect(page.locator("#notice")).to_be_hidden()


def test_the_servers_error_is_shown_and_the_next_photo_works(page: Page) -> None:
    notes = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"milk, bread"}
    page.locator("#file").set_input_files(notes)  # type: ignore[arg-type]
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("The 11 bytes are not a JPEG, PNG, WebP, GIF, BMP or TIFF image.")
    expect(page.locator("#label")).to_have_text("No answer")
    expect(page.locator("#again")).to_be_hidden()
    page.get_by_role("button", name="Sample: church").click()
    expect(page.locator("#label")).to_have_text("church")
    expect(notice).to_be_hidden()


def test_an_overloaded_server_is_reported_and_retried_on_demand(page: Page) -> None:
    problem = {"title": "Overloaded", "status": 503, "code": "overloaded", "detail": "512 images wait"}
    refuse = {"status": 503, "headers": {"Retry-After": "3"}, "content_type": "application/problem+json"}
    page.route("**/classify?*", lambda route: route.fulfill(body=json.dumps(problem), **refuse), times=1)
    page.locator("#ratio").fill("0.3")
    expect(page.get_by_role("alert")).to_contain_text("Overloaded. 512 images wait. Try again in 3 s.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#figures")).to_contain_text("137 of 196")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_lost_server_is_noticed_and_so_is_its_return(page: Page) -> None:
    page.route("**/metrics", lambda route: route.abort())
    page.route("**/classify?*", lambda route: route.abort())
    expect(page.get_by_role("img", name="The server does not answer")).to_be_visible()
    page.locator("#ratio").fill("0.3")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/metrics")
    page.unroute("**/classify?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#figures")).to_contain_text("137 of 196")
    expect(page.get_by_role("img", name="Ready")).to_be_visible()


def test_a_required_key_can_be_entered(visit: Visit) -> None:
    refusal = {
        "title": "Unauthorized",
        "status": 401,
        "code": "unauthorized",
        "detail": "an API key is needed",
    }

    def guard(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "pp_secret":
            route.continue_()
        else:
            route.fulfill(status=401, json=refusal)

    def guarded(page: Page) -> None:
        page.route("**/models", guard)
        page.route("**/models/*", guard)
        page.route("**/classify?*", guard)

    page = visit(first=guarded, answered=False)
    expect(page.get_by_role("alert")).to_contain_text("An API key is needed.")
    page.get_by_label("API key").fill("pp_secret")
    page.get_by_label("API key").press("Enter")
    expect(page.locator("#label")).to_have_text("golf ball")
    expect(page.locator("#notice")).to_be_hidden()
    page.reload()
    expect(page.locator("#label")).to_have_text("golf ball")


def test_a_dial_turned_quickly_ends_at_its_last_value(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "explain=true" in request.url else None)
    page.evaluate(
        """() => { const dial = document.querySelector("#ratio");
            for (let i = 0; i <= 100; i += 1) {
                dial.value = 0.3 + i / 1000;
                dial.dispatchEvent(new Event("input", { bubbles: true }));
            } }"""
    )
    expect(page.locator("#ratio-value")).to_have_text("40\u202f%")
    expect(page.locator("#figures")).to_contain_text("118 of 196")
    assert len(asked) == 2  # the first, and the last that was wished for meanwhile


def test_both_are_timed_alternately_with_medians(page: Page) -> None:
    asked: list[str] = []
    page.on(
        "request",
        lambda request: (
            asked.append(re.sub(r".*ratio=", "", request.url)) if "classify" in request.url else None
        ),
    )
    page.get_by_role("button", name="Time both").click()
    expect(page.locator("#figures")).to_contain_text("median of 10", timeout=120_000)
    assert asked == ["0.755", "0"] * 10


def test_the_page_shows_the_accuracy_of_the_model_and_its_number_format(page: Page, site: str) -> None:
    model = httpx.get(f"{site}/models/deit_tiny_imagenet1k").json()
    dense = model["profile"][0]["validation"]
    said = page.locator("#accuracy").inner_text().replace("\u202f", " ")
    wanted = (
        f"At ratio 0 this model is right on {dense['top1']:.0%} of 398 ImageNet validation photos, and has the "
        f"right class among its five best on {dense['top5']:.0%}."
    )
    assert said.startswith(wanted.replace("%", " %"))
    assert f"It computes in {model['dtype']}" in said


@pytest.mark.parametrize(("by_default", "switch"), [("auto", "Auto (default)"), (0.3, "Auto")])
def test_default_is_what_a_request_gets_that_names_no_ratio(
    visit: Visit, by_default: float | str, switch: str
) -> None:
    def set_to(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "requested_by_default": by_default})

    page = visit(first=lambda p: p.route("**/models/*", set_to))
    expect(page.locator(".switch")).to_have_text(switch, use_inner_text=True)
    presets = page.locator("#presets button")
    names = [text.split("\n")[0] for text in presets.all_inner_texts()]
    wanted = ["Dense", *(["Default"] if by_default == 0.3 else []), "Model’s", "Paper", "Limit"]
    assert names == wanted
    if by_default == 0.3:
        page.get_by_role("button", name="Default").click()
        expect(page.locator("#ratio-value")).to_have_text("30\u202f%")


def test_the_stages_name_the_method_of_the_model(page: Page) -> None:
    """`fuse` merges by importance; a variance of scores, which decides in PPT, is none of its reasons."""
    expect(page.locator("#stage-text")).to_contain_text("tokens into more important ones like them.")


def test_a_click_on_the_curve_turns_the_dial(page: Page) -> None:
    chart = page.locator("#curve svg").first
    box = chart.bounding_box()
    assert box
    chart.click(position={"x": 44 + (box["width"] - 56) / 2, "y": 90})
    shown = float(page.locator("#ratio-value").inner_text().split("\u202f")[0])
    assert shown == pytest.approx(43.6, abs=0.5)
    left = 196 - round(shown * 1.96)
    expect(page.locator("#figures")).to_contain_text(f"{left} of 196")
    expect(page.locator("#curve [role=img]").first).to_have_attribute(
        "aria-label", re.compile(f"At {100 * (196 - left) / 196:.1f}")
    )


def test_a_measured_profile_is_drawn_with_its_agreement(visit: Visit) -> None:
    def measured(route: Route) -> None:
        model = route.fetch().json()
        model["profile"] = [
            {
                "ratio": plan["reduction_ratio"],
                "gmacs": plan["gmacs"],
                "agreement": 1 - 0.1 * i / 9,
                "images": 321,
            }
            for i, plan in enumerate(model["plans"])
        ]
        route.fulfill(json=model)

    page = visit(first=lambda p: p.route("**/models/*", measured))
    expect(page.locator("#curve-note")).to_have_text(
        "GMACs are counted. Dots: measured for deit_tiny_imagenet1k on 321 photos."
    )
    expect(page.locator("#curve")).to_contain_text("agreement with dense")
    expect(page.locator("#curve")).not_to_contain_text("speed")


def test_the_figures_of_the_server_come_and_go_with_the_requests(page: Page, site: str) -> None:
    throughput = page.locator(".tile", has_text="Throughput").locator("b")
    expect(throughput).not_to_have_text(re.compile("^(–|0)$"))
    expect(page.locator(".tile", has_text="Latency").locator("b").first).to_have_text(re.compile(r"\d"))
    expect(throughput).to_have_text("0")


def test_the_load_is_sent_counted_and_can_be_stopped(page: Page, site: str) -> None:
    def answered() -> float:
        found = re.search(
            r'prunepool_requests_total\{.*outcome="ok"\} (\S+)', httpx.get(f"{site}/metrics").text
        )
        assert found
        return float(found[1])

    before = answered()
    page.locator("#clients").select_option("8")
    with page.expect_response(lambda r: r.url.endswith("/classify")):
        page.get_by_role("button", name="Send load").click()
    expect(page.locator("#load-progress")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send load")).to_be_visible()
    said = page.locator("#load-text")
    expect(said).to_contain_text(
        re.compile(r"^\d+ answered in .* images/s\)\. Auto removed \d.*the target is 500")
    )
    expect(said).not_to_contain_text(re.compile("refused|failed"))
    count = int(said.inner_text().split()[0])
    assert 0 < count <= answered() - before


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (503, "the server cannot answer this many images in flight in time"),
        (429, "the rate limit of your API key is reached"),
    ],
)
def test_too_much_load_is_explained(page: Page, status: int, said: str) -> None:
    problem = {"title": "Refused", "status": status, "code": "refused", "detail": "later"}
    later = {"Retry-After": "60"}
    page.route("**/classify", lambda route: route.fulfill(status=status, headers=later, json=problem))
    with page.expect_response(lambda r: r.url.endswith("/classify")):
        page.get_by_role("button", name="Send load").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#load-text")).to_contain_text(re.compile(rf"^0 answered in .* \d+ refused: {said}"))


def test_the_load_ends_by_itself(visit: Visit) -> None:
    page = visit(first=lambda page: page.clock.install())
    page.locator("#clients").select_option("8")
    with page.expect_response(lambda r: r.url.endswith("/classify")):
        page.get_by_role("button", name="Send load for 10 s").click()
    page.clock.fast_forward(9_000)
    expect(page.locator("#load-text")).to_have_text("Sending…")
    page.clock.fast_forward(1_000)
    expect(page.locator("#load-text")).to_contain_text("answered in")
    expect(page.get_by_role("button", name="Send load")).to_be_enabled()


def test_the_page_keeps_no_photo(page: Page, root: Path) -> None:
    stored = page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]")
    assert stored == [[], [], ""]


def test_what_the_model_says_is_compared_and_not_called_right(page: Page) -> None:
    """A Labrador was an "English springer 96.5 % ✓ as the full model"."""
    expect(page.locator("#agreement")).not_to_contain_text("✓")

    def another(route: Route) -> None:
        answer = route.fetch().json()
        answer["predictions"][0] |= {"index": 208, "label": "Labrador retriever"}
        route.fulfill(json=answer)

    page.route(re.compile(r"/classify\?.*reduction_ratio=0$"), another)
    page.get_by_role("button", name="Sample: church").click()
    expect(page.locator("#agreement")).to_have_text("unreduced: Labrador retriever")
    expect(page.locator("#agreement")).to_have_attribute("data-same", "false")


def test_the_classes_of_the_model_are_listed_on_demand_also_on_a_phone(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True)
    classes = page.locator("#classes")
    expect(classes.locator("summary")).to_contain_text("It always picks one of its 1,000 classes")
    expect(classes.locator("li")).to_have_count(0)
    classes.locator("summary").click()
    expect(classes.locator("li")).to_have_count(1000)
    page.get_by_label("Find a class").fill("LABRADOR")
    expect(classes.locator("li")).to_have_text(["Labrador retriever"])
    page.get_by_label("Find a class").fill("unicorn")
    expect(classes.locator("li")).to_have_count(0)
    expect(page.locator("#classes-none")).to_be_visible()


def test_the_hint_comes_back_as_it_was(page: Page) -> None:
    """It came back with the words for a mouse and those for a finger: "Point atTap a patch"."""
    hint = page.locator("#patch")
    before = hint.inner_text()
    page.locator("#patches").hover()
    expect(hint).to_contain_text("Row ")
    page.mouse.move(0, 0)
    expect(hint).to_have_text(before, use_inner_text=True)
    expect(hint).to_have_text("Point at a patch to see its way through the model.", use_inner_text=True)


def test_many_photos_neither_shrink_nor_move_the_map(page: Page) -> None:
    before = page.locator("#map").bounding_box()
    names = [f"{i}.jpg" for i in range(12)]
    files = [{"name": name, "mimeType": "image/jpeg", "buffer": jpeg()} for name in names]
    page.locator("#file").set_input_files(files)  # type: ignore[arg-type]
    expect(page.get_by_role("button", name="0.jpg", exact=True)).to_have_attribute("aria-pressed", "true")
    assert page.locator("#map").bounding_box() == before
    widths = page.locator("#photos button").evaluate_all("all => all.map(b => b.offsetWidth)")
    assert set(widths) == {58}


def test_samples_that_the_model_cannot_know_are_not_offered(visit: Visit) -> None:
    def flowers(route: Route) -> None:
        model = route.fetch().json()
        route.fulfill(json={**model, "labels": [f"flower {i}" for i in range(1000)]})

    page = visit(first=lambda p: p.route("**/models/*", flowers), answered=False)
    expect(page.locator("#label")).to_have_text("Choose a photo")
    expect(page.locator("#photos button")).to_have_count(0)
    page.locator("#file").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg()})
    expect(page.locator("#agreement")).to_be_visible()


def test_a_model_without_classes_offers_no_sample_and_no_list(visit: Visit) -> None:
    def embeds(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "labels": []})

    refusal = {
        "title": "Model has no classes",
        "status": 422,
        "code": "model_has_no_classes",
        "detail": "embeds",
    }

    def first(page: Page) -> None:
        page.route("**/models/*", embeds)
        page.route("**/classify?*", lambda route: route.fulfill(status=422, json=refusal))

    page = visit(first=first, answered=False)
    expect(page.locator("#label")).to_have_text("Choose a photo")
    expect(page.locator("#classes")).to_be_hidden()
    page.locator("#file").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg()})
    expect(page.get_by_role("alert")).to_contain_text("Model has no classes. Embeds.")


def test_a_link_restores_sample_ratio_and_model(visit: Visit, site: str) -> None:
    page = visit()
    model = "deit_tiny_imagenet1k"
    page.goto(f"{site}#model={model}&sample=church&ratio=0.3")
    expect(page.locator("#label")).to_have_text("church")
    expect(page.locator("#ratio-value")).to_have_text("30\u202f%")
    page.get_by_role("button", name="Limit").click()
    page.get_by_role("button", name="Sample: parachute").click()
    page.wait_for_url(re.compile(rf"#model={model}&sample=parachute&ratio=0\.87"))
    page.reload()
    expect(page.locator("#label")).to_have_text("parachute")
    expect(page.locator("#figures")).to_contain_text("25 of 196")
    page.goto(f"{site}#sample=church&ratio=auto&model=none")
    expect(page.get_by_role("switch", name="Auto")).to_be_checked()
    expect(page.locator("#label")).to_have_text("church")


def test_the_models_of_the_server_are_a_table(page: Page, site: str) -> None:
    row = page.locator("#models-rows tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("deit_tiny_imagenet1k (default)")
    expect(row).to_contain_text("1,000")
    page.get_by_role("link", name="Models", exact=True).click()
    expect(page.locator("#models-title")).to_be_in_viewport()


def test_the_load_names_its_target_and_the_page_s_own_comparisons_do_not_count(page: Page) -> None:
    expect(page.locator("#load-target")).to_have_text("It holds answers within 500\u202fms, the target.")
    applied = page.locator(".tile", has_text="Ratio").locator(".applied b")
    page.get_by_role("button", name="Sample: church").click()
    expect(applied).to_have_text(re.compile(r"^75\.5|^76"))
