"""From a JPEG to an answer, through the real server and the embedded model."""

from __future__ import annotations

import base64
import io
import signal
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

Start = Callable[..., AbstractContextManager[Any]]


def jpeg(seed: int, width: int = 500, height: int = 375) -> bytes:
    """A noisy gradient: not a photo of anything, but a real JPEG."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    pixels = np.clip(np.roll(ramp, seed * 997) + rng.normal(0, 20, ramp.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def ask(url: str, image: bytes, **options: object) -> dict[str, Any]:
    answer = httpx.post(
        f"{url}/classify", params=options, content=image, headers={"content-type": "image/jpeg"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize(
    ("ratio", "tokens", "gmacs"),
    [(0, [197], 1.2535), (0.5, [197, 164, 131, 99], 0.9456), (0.755, [197, 147, 97, 49], 0.7982)],
)
def test_each_request_chooses_how_many_tokens_to_spend(
    server: Any, ratio: float, tokens: list[int], gmacs: float
) -> None:
    answer = ask(server.url, jpeg(0), reduction_ratio=ratio, top_k=3)
    assert answer["reduction"]["applied"] == pytest.approx(ratio)
    assert answer["reduction"]["tokens"] == tokens
    assert answer["reduction"]["gmacs"] == pytest.approx(gmacs, abs=1e-3)
    assert len(answer["predictions"]) == 3


def test_all_forms_of_body_give_one_answer(server: Any) -> None:
    image = jpeg(1)
    raw = ask(server.url, image, reduction_ratio=0.5)["predictions"]
    form = httpx.post(
        f"{server.url}/classify",
        files={"file": ("a.jpg", image, "image/jpeg")},
        data={"reduction_ratio": "0.5"},
    ).json()["predictions"]
    encoded = base64.b64encode(image).decode()
    document = httpx.post(f"{server.url}/classify", json={"image": encoded, "reduction_ratio": 0.5}).json()
    for other in (form, document["predictions"]):
        assert [p["label"] for p in other] == [p["label"] for p in raw]
        assert [p["score"] for p in other] == pytest.approx([p["score"] for p in raw], abs=1e-4)


def test_answers_do_not_depend_on_the_company(server: Any) -> None:
    """The same images one at a time and all at once, at five ratios."""
    jobs = [(jpeg(seed), ratio) for seed in range(4) for ratio in (0.0, 0.3, 0.5, 0.755, 0.87)]
    alone = [ask(server.url, image, reduction_ratio=ratio) for image, ratio in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for _ in range(5):  # on a busy machine requests that were sent at once may come one by one
            together = list(pool.map(lambda job: ask(server.url, job[0], reduction_ratio=job[1]), jobs))
            if max(answer["batch_size"] for answer in together) > 1:
                break
        else:
            pytest.fail("nothing was batched")
    for one, other in zip(alone, together, strict=True):
        scores = {p["index"]: p["score"] for p in one["predictions"]}
        for prediction in other["predictions"]:
            assert prediction["score"] == pytest.approx(scores[prediction["index"]], abs=1e-4)


@pytest.mark.parametrize(
    ("content", "params", "status", "code"),
    [
        (b"not an image", {}, 400, "image_undecodable"),
        (jpeg(2)[:500], {}, 400, "image_undecodable"),
        (jpeg(2), {"reduction_ratio": "0.9"}, 422, "invalid_parameter"),
        (jpeg(2), {"model": "nobody"}, 404, "model_not_found"),
    ],
)
def test_a_wrong_request_is_told_what_was_wrong(
    server: Any, content: bytes, params: dict[str, str], status: int, code: str
) -> None:
    answer = httpx.post(
        f"{server.url}/classify", params=params, content=content, headers={"content-type": "image/jpeg"}
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


def test_what_was_served_is_in_the_metrics(server: Any) -> None:
    ask(server.url, jpeg(3), reduction_ratio=0.755)
    text = httpx.get(f"{server.url}/metrics").text
    assert 'prunepool_images_total{model="deit_tiny_imagenette",reduction="0.7-0.8"}' in text
    assert 'prunepool_engine_up{model="deit_tiny_imagenette"} 1.0' in text


def test_every_accepted_request_is_answered_before_the_exit(start: Start) -> None:
    with start() as own:
        with ThreadPoolExecutor(24) as pool:
            jobs = [pool.submit(ask, own.url, jpeg(seed), reduction_ratio=0) for seed in range(24)]
            # The signal falls while the device works: some have been answered, most wait.
            next(job for job in jobs if job.result(60))
            own.process.send_signal(signal.SIGTERM)
            outcomes = [job.exception(60) for job in jobs]
        assert own.process.wait(30) == 0
    lost = [
        e for e in outcomes if isinstance(e, httpx.TransportError) and not isinstance(e, httpx.ConnectError)
    ]
    assert not lost, f"accepted but not answered: {lost}"


@pytest.mark.shared
def test_real_photos_are_recognised(server: Any, shared: Path) -> None:
    """Forty photos of the ten classes that the model never saw, at both ends of the dial."""
    synsets: list[str] = []
    photos: list[tuple[str, bytes]] = []
    with tarfile.open(shared / "data/imagenette160-val.tar") as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        synsets = sorted({m.name.split("/")[-2] for m in members})
        for member in members[:: len(members) // 40][:40]:
            file = archive.extractfile(member)
            assert file is not None
            photos.append((member.name.split("/")[-2], file.read()))
    for ratio in (0, 0.755):
        right = sum(
            synsets[ask(server.url, photo, reduction_ratio=ratio)["predictions"][0]["index"]] == synset
            for synset, photo in photos
        )
        assert right >= 36, f"{right} of 40 at ratio {ratio}"
