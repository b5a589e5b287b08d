"""The page's modules, run in the browser from the served files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from prunepool.imaging.geometry import Preprocess, resize_and_crop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def modules(browser: Browser, site: str) -> Iterator[Page]:
    """A tab from which the page's modules can be called; nothing of the page itself runs in it."""
    page = browser.new_page()
    page.goto(f"{site}/static/icon.svg")
    yield page
    page.close()


def call(modules: Page, module: str, function: str, *arguments: Any) -> Any:
    return modules.evaluate(
        "async ([module, name, given]) => (await import(`/static/js/${module}.js`))[name](...given)",
        [module, function, list(arguments)],
    )


@pytest.mark.parametrize("name", ["golf_ball", "church"])
def test_the_map_lies_on_the_pixels_that_the_model_sees(page: Page, root: Path, name: str) -> None:
    if name == "church":
        page.get_by_role("button", name="Sample: church").click()
        expect(page.locator("#label")).to_have_text("church")
    url = page.locator("#crop").evaluate("canvas => canvas.toDataURL()")
    shown = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")
    canvas = np.array(shown.resize((224, 224), Image.Resampling.BOX), dtype=np.float64)
    with Image.open(root / "service/prunepool/api/static/samples" / f"{name}.jpg") as photo:
        seen = resize_and_crop(photo.convert("RGB"), Preprocess(224, 0.9)).astype(np.float64)

    def apart(dx: int, dy: int) -> float:
        inner = np.s_[4:-4, 4:-4]
        return float(np.abs(np.roll(canvas, (dy, dx), (0, 1))[inner] - seen[inner]).mean())

    shifts = {(dx, dy): apart(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
    assert min(shifts, key=lambda shift: shifts[shift]) == (0, 0)


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize(
    ("width", "height", "size", "share"),
    [
        (500, 375, 224, 0.9),
        (375, 500, 224, 0.9),
        (333, 1000, 256, 0.875),
        (64, 64, 224, 1.0),
        (4000, 100, 224, 0.9),
    ],
)
def test_the_crop_is_the_servers(
    modules: Page, width: int, height: int, size: int, share: float, mode: str
) -> None:
    ramp: NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None, :]
    ramp[..., 1] = np.linspace(0, 255, height)[:, None]
    seen = resize_and_crop(Image.fromarray(ramp), Preprocess(size, share, "bilinear", mode)).astype(float)
    crop = call(modules, "crop", "cropOf", width, height, size, share, mode)
    for channel, start, extent, whole in ((0, "x", "width", width), (1, "y", "height", height)):
        first, last = seen[size // 2, 0, channel], seen[size // 2, -1, channel]
        if channel == 1:
            first, last = seen[0, size // 2, channel], seen[-1, size // 2, channel]
        tolerance = 1.5 * whole / 255 + crop[extent] / size
        assert crop[start] == pytest.approx(first * whole / 255, abs=tolerance)
        assert crop[start] + crop[extent] == pytest.approx(last * whole / 255, abs=tolerance)


def test_with_borders_the_crop_reaches_beyond_the_photo(modules: Page) -> None:
    crop = call(modules, "crop", "cropOf", 500, 375, 224, 1.0, "border")
    assert crop == {"x": 0, "y": pytest.approx(-62.5), "width": 500, "height": pytest.approx(500)}


def area(path: str) -> float:
    """The area within closed loops; holes count against it."""
    total = 0.0
    for loop in filter(None, path.replace("M", "").split("Z")):
        points = [tuple(map(float, point.split())) for point in loop.split("L")]
        total += sum(
            x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True)
        )
    return total / 2


def test_an_outline_encloses_its_cells_and_nothing_else(modules: Page) -> None:
    rng = np.random.default_rng(0)
    sets = [sorted(map(int, np.flatnonzero(rng.random(196) < share))) for share in np.linspace(0.01, 1, 40)]
    paths = modules.evaluate(
        """async (sets) => { const { outline } = await import("/static/js/outline.js");
            return sets.map((cells) => outline(cells, 14, 0)); }""",
        sets,
    )
    assert [area(path) for path in paths] == [len(cells) for cells in sets]


def test_outlines_of_cells_that_touch_at_a_corner_are_two(modules: Page) -> None:
    assert call(modules, "outline", "outline", [0, 15], 14, 0).count("Z") == 2


def test_an_outline_is_drawn_inside_of_its_cells(modules: Page) -> None:
    assert area(call(modules, "outline", "outline", [20], 14, 0.1)) == pytest.approx(0.8 * 0.8)


def test_percentiles_between_two_readings_are_prometheus(modules: Page) -> None:
    registry = CollectorRegistry()
    histogram = Histogram(
        "prunepool_request_duration_seconds",
        "d",
        ("model", "stage"),
        buckets=(0.01, 0.1, 1),
        registry=registry,
    )
    of = histogram.labels('odd "name"\\', "total")
    for _ in range(7):
        of.observe(5.0)  # before: must not count
    before = generate_latest(registry).decode()
    for seconds in (0.005, 0.05, 0.05, 0.5):
        of.observe(seconds)
    after = generate_latest(registry).decode()
    model = 'odd "name"\\'
    figures = modules.evaluate(
        """async ([before, after, model]) => { const m = await import("/static/js/readings.js");
            return m.figures([m.reading(before, model, 0), m.reading(after, model, 5)]); }""",
        [before, after, model],
    )
    assert figures["p50"] == pytest.approx(1000 * (0.01 + 0.09 * (2 - 1) / 2))
    assert figures["p99"] == pytest.approx(1000 * (0.1 + 0.9 * (0.99 * 4 - 3) / 1))
    assert figures["throughput"] == 0
    assert figures["batch"] is None


def test_a_restarted_server_counts_from_its_start(modules: Page) -> None:
    def reading(n: int) -> str:
        return f'prunepool_images_total{{model="m",reduction="0"}} {n}\n'

    figures = modules.evaluate(
        """async ([before, after]) => { const m = await import("/static/js/readings.js");
            return m.figures([m.reading(before, "m", 0), m.reading(after, "m", 5)]); }""",
        [reading(1000), reading(10)],
    )
    assert figures["throughput"] == 2


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.99999, ">99.9"), (1, "100.0"), (0.5, "50.0"), (0.00001, "<0.1")],
)
def test_a_score_is_not_rounded_to_certainty(modules: Page, value: float, written: str) -> None:
    assert call(modules, "format", "score", value).replace("\u202f", "").removesuffix("%") == written


def test_a_small_figure_is_written_with_an_exponent(modules: Page) -> None:
    assert call(modules, "format", "scientific", 0.00021) == "2.1\u202f×\u202f10⁻⁴"


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (None, ""),
        ([{"ratio": 0, "gmacs": 1.25}], ""),
        ([{"ratio": 0, "top1": 0.967, "top5": 1, "images": 1000}], "right on 97 % of 1000 photos."),
        (
            [
                {
                    "ratio": 0,
                    "top1": 0.8,
                    "validation": {"top1": 0.64, "top5": 0.867, "images": 398, "of": "hard ones"},
                }
            ],
            "right on 64 % of 398 hard ones, and has the right class among its five best on 87 %.",
        ),
    ],
)
def test_the_accuracy_of_a_model(modules: Page, profile: list[dict[str, Any]] | None, said: str) -> None:
    found = call(modules, "served", "accuracyOf", {"profile": profile}).replace("\u202f", " ")
    assert found == (said and f"At ratio 0 this model is {said}")


@pytest.mark.parametrize(
    ("dtype", "formats", "said"),
    [
        ("float32", [], "It computes in float32."),
        ("bfloat16", [], "It computes in bfloat16, which was not compared with float32 here."),
        (
            "int8",
            [
                {"dtype": "float32", "chosen": False, "measured": [{"agreement": 1, "kl": 0}]},
                {
                    "dtype": "int8",
                    "chosen": True,
                    "measured": [{"agreement": 1, "kl": 0.0004}, {"agreement": 0.875, "kl": 0.0011}],
                },
            ],
            (
                "It computes in int8: the same best class as in float32 on 88 % of the sample photos, "
                "with probabilities 1.1 × 10⁻³ nats apart."
            ),
        ),
    ],
)
def test_the_number_format_of_a_model(
    modules: Page, dtype: str, formats: list[dict[str, Any]], said: str
) -> None:
    found = call(modules, "served", "formatOf", {"dtype": dtype, "number_formats": formats})
    assert found.replace("\u202f", " ") == said


def test_the_curve_reaches_the_limit_and_has_what_was_measured(modules: Page) -> None:
    plans = [{"reduction_ratio": ratio, "gmacs": 1.25 - ratio} for ratio in (0, 0.5, 0.755, 0.8724)]
    profile = [
        {"ratio": 0, "gmacs": 1.25, "top1": 0.8, "agreement": 1, "images": 9},
        {"ratio": 0.5, "gmacs": 0.7, "top1": 0.79, "agreement": 0.9, "speed": {"speedup": 1.2}},
    ]
    curve = call(modules, "curve", "curveOf", {"profile": profile, "plans": plans})
    points = curve["points"]
    assert [point["ratio"] for point in points] == [0, 0.5, 0.755, 0.8724]
    assert [point["measured"] for point in points] == [True, True, False, False]
    assert [point["gmacs"] for point in points[:2]] == [1.25, 0.7]
    assert [point["top1"] for point in points] == [0.8, 0.79, None, None]
    assert [point["speedup"] for point in points] == [1, 1.2, None, None]
    assert curve["measuredOn"] == " on 9 photos"
    bare = call(modules, "curve", "curveOf", {"profile": None, "plans": plans})
    assert [point["ratio"] for point in bare["points"]] == [0, 0.5, 0.755, 0.8724]


def test_the_curve_shows_the_top1_that_the_text_beside_it_names(modules: Page) -> None:
    """The photos of a profile may show few of the model's classes, and are then easier than validation photos."""
    hard = {"top5": 0.87, "images": 398, "of": "hard ones"}
    profile = [
        {"ratio": 0, "gmacs": 1.25, "top1": 0.8, "images": 9, "validation": {"top1": 0.64, **hard}},
        {"ratio": 0.3, "gmacs": 1.1, "top1": 0.81, "images": 9},
        {"ratio": 0.5, "gmacs": 0.7, "top1": 0.79, "images": 9, "validation": {"top1": 0.63, **hard}},
    ]
    curve = call(modules, "curve", "curveOf", {"profile": profile, "plans": []})
    assert [point["top1"] for point in curve["points"]] == [0.64, None, 0.63]
    assert curve["measuredOn"] == " on 9 photos, top-1 on 398 hard ones"
    once = call(modules, "curve", "curveOf", {"profile": profile[:2], "plans": []})
    assert [point["top1"] for point in once["points"]] == [0.8, 0.81], "one point is no curve"
    assert once["measuredOn"] == " on 9 photos"


@pytest.mark.parametrize(
    ("ratios", "said"), [([0.5, 0.5], "50 %"), ([0, 0.87, 0.87], "58 % on average, 0 % to 87 %")]
)
def test_a_mean_stands_with_the_least_and_the_most_of_the_same_ratios(
    modules: Page, ratios: list[float], said: str
) -> None:
    assert call(modules, "load", "spread", ratios).replace("\u202f", " ") == said


def test_the_mean_ratio_leaves_out_what_the_page_asked_for_to_compare(modules: Page) -> None:
    def read(count: int, total: float) -> str:
        name = "prunepool_applied_reduction_ratio"
        return f'{name}_sum{{model="m"}} {total}\n{name}_count{{model="m"}} {count}\n'

    figures = modules.evaluate(
        """async ([before, after]) => { const m = await import("/static/js/readings.js");
            return m.figures([m.reading(before, "m", 0, 3), m.reading(after, "m", 5, 7)]); }""",
        [read(10, 5.0), read(18, 8.0)],
    )
    assert figures["applied"] == pytest.approx(3.0 / 4)


def test_a_fine_map_has_few_colours(modules: Page) -> None:
    hues = modules.evaluate(
        """async () => { const { hueOf } = await import("/static/js/frames.js");
            const all = Array.from({ length: 576 }, (_, i) => hueOf([i], 4));
            return [new Set(all).size, hueOf([1]) !== hueOf([2])]; }"""
    )
    assert hues == [4, True]
