"""Pulling from a hub: a real HTTP server of our own that speaks the hub's routes."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from prunepool.cli import run
from prunepool.errors import HubUnreachable, ModelError, WeightsInvalid
from prunepool.models.catalogue import look_up
from prunepool.models.hub import Hub
from prunepool.models.labels import imagenet_labels
from prunepool.models.pull import pull
from prunepool.store import ModelStore

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1.0", COMMIT)
NAME = "deit_tiny_patch16_224.fb_in1k"
ROUTE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^/?]+)")


@dataclass
class HubServer:
    """A small model hub.

    Attributes:
        files: repository and file name to bytes; all of one commit.
        announce: what to say of a file's sha256 instead of the truth.
        status: what every answer is instead.
        break_off_after: how many bytes of a file are sent before the connection is closed.
        requests: method and path of each.
    """

    files: dict[str, bytes]
    announce: str | None = None
    status: int | None = None
    break_off_after: int | None = None
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """What the hub's `resolve` route does for a file kept in large file storage."""
        self.requests.append(f"{handler.command} {handler.path}")
        found = ROUTE.fullmatch(handler.path)
        content = self.files.get(f"{found['repo']}/{found['file']}") if found else None
        if self.status or found is None or content is None or found["revision"] not in REVISIONS:
            repos = {key.rpartition("/")[0] for key in self.files}
            known = found is not None and found["repo"] in repos
            if known and found is not None and found["revision"] not in REVISIONS:
                why = "RevisionNotFound"
            else:
                why = "EntryNotFound" if known else "RepoNotFound"
            handler.send_response(self.status or 404)
            if not self.status:
                handler.send_header("X-Error-Code", why)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(200)
        handler.send_header("ETag", f'"{self.announce or hashlib.sha256(content).hexdigest()}"')
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content[: self.break_off_after])


@pytest.fixture(scope="module")
def weights(random_vit: Callable[..., nn.Module]) -> bytes:
    """A file of random weights of DeiT-Ti with 1000 classes, float16."""
    vit = random_vit("deit_tiny_patch16_224", num_classes=1000)
    return save({key: value.half() for key, value in vit.state_dict().items()})


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No proxy, no token, no cache of this machine's; the library's HTTP client is closed in the end."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server(weights: bytes) -> Iterator[HubServer]:
    """A hub that has DeiT-Ti."""
    hub = HubServer({f"timm/{NAME}/model.safetensors": weights})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            hub.answer(self)

        def do_GET(self) -> None:
            hub.answer(self)
            if hub.break_off_after is not None:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        hub.address = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def hub(server: HubServer) -> Hub:
    return Hub(server.address)


@pytest.fixture
def nowhere() -> Iterator[Hub]:
    """An address that refuses every connection: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Hub(f"http://127.0.0.1:{bound.getsockname()[1]}")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def leftovers(store: ModelStore) -> list[Path]:
    return list(store.root.iterdir()) if store.root.exists() else []


def test_a_pulled_model_has_timms_settings_and_the_hubs_bytes(
    store: ModelStore, hub: Hub, weights: bytes
) -> None:
    pull(store, NAME, hub=hub)
    model = store.verify(NAME)
    assert model.weights_path.read_bytes() == weights
    manifest = model.manifest
    assert manifest.architecture == "deit_tiny_patch16_224"
    assert manifest.origin == f"hf-hub:timm/{NAME}@{COMMIT}"
    assert manifest.licence == "apache-2.0"
    assert manifest.mean == (0.485, 0.456, 0.406)
    assert manifest.std == (0.229, 0.224, 0.225)
    assert (manifest.input_size, manifest.crop_pct, manifest.interpolation) == (224, 0.9, "bicubic")
    assert manifest.labels == imagenet_labels(1000)


def test_nothing_but_the_model_is_left_in_the_store(store: ModelStore, hub: Hub) -> None:
    pull(store, NAME, hub=hub)
    assert [path.name for path in leftovers(store)] == [NAME]
    assert sorted(path.name for path in (store.root / NAME).iterdir()) == ["model.json", "model.safetensors"]


def test_only_the_weights_are_asked_for_and_by_commit(store: ModelStore, hub: Hub, server: HubServer) -> None:
    pull(store, NAME, hub=hub)
    assert server.requests[0] == f"HEAD /timm/{NAME}/resolve/main/model.safetensors"
    assert server.requests[-1] == f"GET /timm/{NAME}/resolve/{COMMIT}/model.safetensors"


@pytest.mark.parametrize("spelling", ["deit_tiny_patch16_224", f"timm/{NAME}", f"hf-hub:timm/{NAME}"])
def test_the_name_in_the_store_is_the_one_given(store: ModelStore, hub: Hub, spelling: str) -> None:
    pull(store, spelling, hub=hub)
    assert store.names() == (spelling.rpartition("/")[2],)


def test_another_name_can_be_chosen(store: ModelStore, hub: Hub) -> None:
    pull(store, NAME, hub=hub, name="tiny")
    assert store.verify("tiny").manifest.origin.startswith("hf-hub:")


def test_a_taken_name_is_found_out_before_the_hub_is_asked(
    store: ModelStore, hub: Hub, server: HubServer
) -> None:
    pull(store, NAME, hub=hub)
    server.requests.clear()
    with pytest.raises(ModelError, match="already has a model"):
        pull(store, NAME, hub=hub)
    assert server.requests == []
    pull(store, NAME, hub=hub, replace=True)
    store.verify(NAME)


def test_a_hub_that_is_not_there_is_given_up_at_once_with_all_there_is_to_do(
    store: ModelStore, nowhere: Hub
) -> None:
    start = time.monotonic()
    with pytest.raises(HubUnreachable) as caught:
        pull(store, NAME, hub=nowhere)
    assert time.monotonic() - start < 5
    message = caught.value.detail
    assert message.startswith(f"no answer from the model hub at {nowhere.endpoint} (ConnectError: ")
    assert (
        f"fetch {nowhere.endpoint}/timm/{NAME}/resolve/main/model.safetensors on another machine" in message
    )
    assert message.endswith(
        "run: prunepool models add model.safetensors "
        f"--name {NAME} --architecture {NAME} --licence apache-2.0"
    )
    assert "HTTPS_PROXY" in message
    assert "HF_ENDPOINT" in message
    assert "\n" not in message
    assert leftovers(store) == []


def test_the_advice_works_as_given(store: ModelStore, nowhere: Hub, weights: bytes, tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable) as caught:
        pull(store, NAME, hub=nowhere)
    (tmp_path / "model.safetensors").write_bytes(weights)
    command = caught.value.detail.partition("prunepool models ")[2].split()
    command[command.index("model.safetensors")] = str(tmp_path / "model.safetensors")
    assert run(["models", *command, "--model-store", str(store.root)]) == 0
    assert store.verify(NAME).manifest.mean == (0.485, 0.456, 0.406)


def test_a_hub_that_never_answers_is_given_up_after_its_time(store: ModelStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = Hub(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        start = time.monotonic()
        with pytest.raises(HubUnreachable, match=r"\(ReadTimeout: "):
            pull(store, NAME, hub=hub)
    assert time.monotonic() - start < 5


def test_offline_mode_is_named(
    store: ModelStore, hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match=r"\(HF_HUB_OFFLINE is set\); check the network"):
        pull(store, NAME, hub=hub)
    assert server.requests == []


def test_a_copy_in_the_machines_cache_will_do_and_is_owned_up_to(
    store: ModelStore, nowhere: Hub, tmp_path: Path, weights: bytes
) -> None:
    repo = tmp_path / "cache" / f"models--timm--{NAME}"
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT / "model.safetensors").write_bytes(weights)
    added = pull(store, NAME, hub=nowhere)
    assert store.verify(NAME).manifest.origin == f"hf-hub:timm/{NAME}@{COMMIT}"
    assert added.notices == (
        f"{nowhere.endpoint} did not answer; the weights are those in this machine's cache of it",
    )


def test_a_copy_in_the_cache_that_cannot_be_read_is_named(
    store: ModelStore, nowhere: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / COMMIT / "model.safetensors"
    monkeypatch.setattr("prunepool.models.hub.try_to_load_from_cache", lambda *_, **__: str(gone))
    with pytest.raises(ModelError) as caught:
        pull(store, NAME, hub=nowhere)
    assert caught.value.detail == f"{gone}: cannot be read (No such file or directory)"
    assert leftovers(store) == []


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_hub_that_fails_is_given_up_at_once(
    store: ModelStore, hub: Hub, server: HubServer, status: int
) -> None:
    server.status = status
    start = time.monotonic()
    with pytest.raises(HubUnreachable, match=rf"^the model hub at .* answers with status {status}; check"):
        pull(store, NAME, hub=hub)
    assert time.monotonic() - start < 5
    assert len(server.requests) == 1


def test_weights_that_the_hub_has_not_are_named(store: ModelStore, hub: Hub) -> None:
    with pytest.raises(HubUnreachable) as caught:
        pull(store, "deit_small_patch16_224", hub=hub)
    repo = "timm/deit_small_patch16_224.fb_in1k"
    assert caught.value.detail == (
        f"the model hub at {hub.endpoint} has no {repo}/model.safetensors, or shows it to a HF_TOKEN only"
    )


def test_a_repository_without_the_file_is_named(store: ModelStore, hub: Hub, server: HubServer) -> None:
    server.files = {f"timm/{NAME}/pytorch_model.bin": b"pickle"}
    with pytest.raises(HubUnreachable, match=rf"has no timm/{NAME}/model\.safetensors"):
        pull(store, NAME, hub=hub)


def test_a_download_that_breaks_off_for_good_leaves_nothing(
    store: ModelStore, hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_off_after = 0
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(
        HubUnreachable, match=r"^the download from http.* broke off \(.*\); check the network"
    ):
        pull(store, NAME, hub=hub)
    assert leftovers(store) == []


def test_a_disk_that_fills_up_during_the_download_is_not_the_hubs_fault(store: ModelStore, hub: Hub) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(ModelError, match=r"^cannot write to the store .*: File too large$"):
            pull(store, NAME, hub=hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(store) == []


def test_bytes_other_than_announced_are_refused(store: ModelStore, hub: Hub, server: HubServer) -> None:
    server.announce = "f" * 64
    with pytest.raises(WeightsInvalid, match=r"came with sha256 [0-9a-f]{64}, but the hub announced f{64}$"):
        pull(store, NAME, hub=hub)
    assert leftovers(store) == []


def test_weights_of_another_architecture_are_refused(store: ModelStore, hub: Hub, server: HubServer) -> None:
    server.files[f"timm/{NAME}/model.safetensors"] = save({"head.weight": torch.zeros(1000, 192)})
    with pytest.raises(WeightsInvalid, match=r"151 missing \(cls_token, pos_embed, .*, …\)$"):
        pull(store, NAME, hub=hub)
    assert leftovers(store) == []


def test_a_page_that_is_no_hub_is_told_apart(store: ModelStore, hub: Hub, server: HubServer) -> None:
    server.status = 200
    server.files = {}
    with pytest.raises(HubUnreachable, match=r"answers, but not as a model hub does"):
        pull(store, NAME, hub=hub)


def test_a_model_that_is_published_without_a_head_gives_an_embedding(
    store: ModelStore, hub: Hub, server: HubServer, random_vit: Callable[..., nn.Module]
) -> None:
    name = "vit_tiny_patch16_dinov3_qkvb"
    vit = random_vit(name)
    entry = look_up(name)
    assert not entry.classes
    server.files[f"{entry.hub_id}/model.safetensors"] = save(
        {key: value.half() for key, value in vit.state_dict().items()}
    )
    added = pull(store, name, hub=hub)
    assert (
        "it has no classification head: its output is an embedding, and /classify refuses it" in added.notices
    )
    manifest = added.model.manifest
    assert manifest.geometry is not None
    assert (manifest.labels, manifest.geometry.outputs, manifest.geometry.positions) == ((), 192, "rotary")


def test_a_model_that_timm_evaluates_on_squashed_images_gets_them(
    store: ModelStore, hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from prunepool.models import pull as module

    squashed = dataclasses.replace(module.look_up(NAME), crop_mode="squash")
    monkeypatch.setattr(module, "look_up", lambda name: squashed)
    assert pull(store, NAME, hub=hub).notices == ()
    assert store.open(NAME).manifest.crop_mode == "squash"


SAVED = Path(__file__).parent / "transformers"


@pytest.fixture
def pets(server: HubServer) -> HubServer:
    """The hub has a fine-tuned ViT, as transformers saved it."""
    files = {path.name: path.read_bytes() for path in (SAVED / "vit").iterdir() if path.suffix != ".npz"}
    files["README.md"] = b"---\nlicense: mit\n---\n"
    server.files |= {f"me/pets.v2/{name}": content for name, content in files.items()}
    return server


@pytest.mark.parametrize("spelling", ["me/pets.v2", "hf-hub:me/pets.v2", "me/pets.v2@v1.0"])
def test_a_repository_is_pulled_as_a_folder_is_added(
    store: ModelStore, hub: Hub, pets: HubServer, spelling: str
) -> None:
    added = pull(store, spelling, hub=hub)
    manifest = store.verify("pets.v2").manifest
    assert manifest.labels == ("cat", "dog", "fox", "owl", "yak")
    assert (manifest.origin, manifest.licence) == (f"hf-hub:me/pets.v2@{COMMIT}", "mit")
    assert (manifest.crop_mode, manifest.input_size, added.notices) == ("squash", 32, ())
    assert [path.name for path in leftovers(store)] == ["pets.v2"]
    assert sorted(path.name for path in (store.root / "pets.v2").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_every_file_of_a_repository_is_of_the_commit_of_the_first(
    store: ModelStore, hub: Hub, pets: HubServer
) -> None:
    pull(store, "me/pets.v2@v1.0", hub=hub)
    revisions = [request.split("/resolve/")[1].partition("/")[0] for request in pets.requests]
    assert revisions == ["v1.0", *[COMMIT] * (len(revisions) - 1)]


def test_weights_of_a_repository_may_be_in_several_files(
    store: ModelStore, hub: Hub, pets: HubServer
) -> None:
    weights = load(pets.files.pop("me/pets.v2/model.safetensors"))
    halves = {"a.safetensors": sorted(weights)[::2], "b.safetensors": sorted(weights)[1::2]}
    for name, keys in halves.items():
        pets.files[f"me/pets.v2/{name}"] = save({key: weights[key] for key in keys})
    index = {"weight_map": {key: name for name, keys in halves.items() for key in keys}}
    pets.files["me/pets.v2/model.safetensors.index.json"] = json.dumps(index).encode()
    pull(store, "me/pets.v2", hub=hub)
    store.verify("pets.v2")
    del pets.files["me/pets.v2/b.safetensors"]
    with pytest.raises(HubUnreachable, match=r"has no me/pets\.v2/b\.safetensors"):
        pull(store, "me/pets.v2", hub=hub, name="again")


@pytest.mark.parametrize(
    ("reference", "gone", "message"),
    [
        ("me/none", "", r"has no me/none/config\.json, or shows it to a HF_TOKEN only$"),
        ("me/pets.v2@v9", "", r"me/pets\.v2 at .* has no branch, tag or commit 'v9'$"),
        ("me/pets.v2", "config.json", r"has no me/pets\.v2/config\.json.*: it says what the weights are$"),
        ("me/pets.v2", "model.safetensors", r"has no me/pets\.v2/model\.safetensors"),
    ],
)
def test_a_repository_without_what_is_needed_is_named(
    store: ModelStore, hub: Hub, pets: HubServer, reference: str, gone: str, message: str
) -> None:
    pets.files.pop(f"me/pets.v2/{gone}", None)
    with pytest.raises(HubUnreachable, match=message):
        pull(store, reference, hub=hub)
    assert leftovers(store) == []


def test_a_repository_of_an_adapter_is_refused_by_name(
    store: ModelStore, hub: Hub, server: HubServer
) -> None:
    server.files["me/lora/adapter_config.json"] = b"{}"
    server.files["me/lora/config.json"] = b"{}"
    with pytest.raises(WeightsInvalid, match=r"is an adapter of PEFT .*merge_and_unload\(\)"):
        pull(store, "me/lora", hub=hub)


def test_without_the_hub_a_repository_in_the_machines_cache_will_do(
    store: ModelStore, nowhere: Hub, pets: HubServer, tmp_path: Path
) -> None:
    repo = tmp_path / "cache" / "models--me--pets.v2"
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors"):
        (repo / "snapshots" / COMMIT / name).write_bytes(pets.files[f"me/pets.v2/{name}"])
    added = pull(store, "me/pets.v2", hub=nowhere)
    assert store.verify("pets.v2").manifest.origin == f"hf-hub:me/pets.v2@{COMMIT}"
    assert len(added.notices) == 2
    assert added.notices[0].startswith("it has no preprocessor_config.json: its images are prepared")
    assert "in this machine's cache" in added.notices[1]


def test_without_the_hub_a_repository_is_fetched_as_the_message_says(store: ModelStore, nowhere: Hub) -> None:
    with pytest.raises(HubUnreachable) as caught:
        pull(store, "me/pets.v2@v1.0", hub=nowhere)
    assert caught.value.detail.endswith(
        f"or fetch the files of {nowhere.endpoint}/me/pets.v2 at v1.0 on another machine into a folder and run: "
        "prunepool models add DIR"
    )


def test_the_environment_names_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example/")
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "7")
    assert Hub.from_environment() == Hub("http://mirror.example", 7.0)


def test_the_command_pulls_from_the_hub_of_the_environment(
    store: ModelStore, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    assert run(["models", "pull", NAME, "--model-store", str(store.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == NAME
    store.verify(NAME)


def test_the_command_without_a_hub_prints_one_line_and_exits_1(
    store: ModelStore, nowhere: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", nowhere.endpoint)
    assert run(["models", "pull", NAME, "--model-store", str(store.root)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("prunepool: no answer from the model hub at ")
