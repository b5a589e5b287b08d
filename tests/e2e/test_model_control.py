"""Models loaded, replaced and unloaded in a real server while it is asked, by Triton's client and by SIGHUP."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.e2e

MODEL = "deit_tiny_imagenette"
TIMEOUT_S = 60.0


def put(root: Path, store: Path, name: str, prefix: str = "") -> None:
    """Put the embedded model into a store under another name, its labels with a prefix."""
    folder = store / name
    if not folder.exists():
        shutil.copytree(root / "model_store" / MODEL, folder)
    manifest = json.loads((root / "model_store" / MODEL / "model.json").read_text())
    labels = [prefix + label for label in manifest["labels"]]
    draft = folder / "model.json.draft"
    draft.write_text(json.dumps({**manifest, "name": name, "labels": labels}))
    draft.rename(folder / "model.json")


@contextmanager
def asking(url: str, photo: bytes, model: str) -> Iterator[list[Any]]:
    """Two clients that ask without a pause; what they were answered."""
    answers: list[Any] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
            while not over.is_set():
                response = client.post(f"/classify?model={model}&top_k=1", content=photo)
                answers.append((response.status_code, response.json()))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_models_come_go_and_change_without_a_failed_request(start: Any, root: Path, tmp_path: Path) -> None:
    photo = (root / "docs/images/sample.jpg").read_bytes()
    put(root, tmp_path, MODEL)
    put(root, tmp_path, "other", "old ")
    flags = ("--model-store", str(tmp_path), "--model-control", "explicit", "--max-batch-size", "4")
    with start(*flags) as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=TIMEOUT_S)
        with asking(server.url, photo, MODEL) as others:
            wait(lambda: others)
            client.load_model("other")
            assert client.is_model_ready("other")
            with asking(server.url, photo, "other") as answers:
                wait(lambda: len(answers) > 3)
                put(root, tmp_path, "other", "new ")
                client.load_model("other")
                put(root, tmp_path, "other", "newest ")
                server.process.send_signal(signal.SIGHUP)
                wait(lambda: answers[-1][1]["predictions"][0]["label"].startswith("newest "))
            client.unload_model("other")
        assert [answer for status, answer in others + answers if status != 200] == []
        words = [answer["predictions"][0]["label"].split()[0] for _, answer in answers]
        assert list(dict.fromkeys(words)) == ["old", "new", "newest"]

        refused = httpx.post(f"{server.url}/classify?model=other", content=photo)
        assert (refused.status_code, refused.json()["code"]) == (404, "model_not_found")
        index = {one["name"]: one["state"] for one in client.get_model_repository_index()}
        assert index == {MODEL: "READY", f"{MODEL}_jpeg": "READY", "other": "UNAVAILABLE"}
        with pytest.raises(InferenceServerException, match="cannot be unloaded"):
            client.unload_model(MODEL)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert 'engine_up{model="other"}' not in httpx.get(f"{server.url}/metrics").text
        client.close()
        server.process.terminate()
        assert server.process.wait(TIMEOUT_S) == 0
