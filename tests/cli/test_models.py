"""`prunepool models …` as a user or a script calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunepool.cli import run
from prunepool.store import Manifest, ModelStore, ProfilePoint
from prunepool.store.locations import PACKAGED

EMBEDDED = "deit_tiny_imagenette"


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path, root: Path) -> ModelStore:
    """A temporary store with the embedded model, without its compiled passes."""
    store = ModelStore(tmp_path / "store")
    embedded = ModelStore(root / "model_store").open(EMBEDDED)
    with store.staging() as folder:
        (folder / "model.safetensors").write_bytes(embedded.weights_path.read_bytes())
        store.add(embedded.manifest.model_copy(update={"compiled": None}), folder)
    return store


@pytest.fixture
def call(
    store: ModelStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Call:
    """Runs `prunepool models …` on that store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNEPOOL_MODEL_STORE", str(store.root))

    def _call(*arguments: str) -> Result:
        status = run(["models", *arguments])
        return Result(status, *capsys.readouterr())

    return _call


@pytest.fixture
def weights(store: ModelStore) -> Path:
    """A file of weights of DeiT-Ti with ten classes."""
    return store.open(EMBEDDED).weights_path


def one_line(result: Result, status: int) -> str:
    """The only line of a call that failed."""
    assert (result.status, result.out) == (status, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("prunepool: ")
    return result.err.removeprefix("prunepool: ").rstrip()


def test_list_is_a_table(call: Call, store: ModelStore) -> None:
    result = call("list")
    assert result.status == 0
    head, row, where = result.out.splitlines()
    assert head.split() == [
        "NAME",
        "ARCHITECTURE",
        "INPUT",
        "CLASSES",
        "PARAMETERS",
        "SIZE",
        "LICENCE",
        "WHERE",
    ]
    words = [EMBEDDED, "deit_tiny_patch16_224", "224²", "10", "5.5", "M", "11", "MB", "Apache-2.0", "store"]
    assert row.split() == words
    assert where == f"store: {store.root}"


def test_list_as_json(call: Call, store: ModelStore) -> None:
    assert json.loads(call("list", "--json").out) == [
        {
            "name": EMBEDDED,
            "architecture": "deit_tiny_patch16_224",
            "input_size": 224,
            "classes": 10,
            "parameters": 5_526_346,
            "dtype": "float16",
            "bytes": 11_066_236,
            "licence": "Apache-2.0",
            "default_ratio": 0.5,
            "folder": str(store.root / EMBEDDED),
            "packaged": False,
        }
    ]


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call) -> Path:
    """In an empty folder, with no setting: the data folder of a user who has added nothing yet."""
    monkeypatch.delenv("PRUNEPOOL_MODEL_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "data" / "prunepool" / "models"


def test_packaged_models_are_there_from_the_start(call: Call, stranger: Path) -> None:
    table = call("list").out.splitlines()
    assert [row.split()[-1] for row in table if "deit_tiny_" in row] == ["packaged", "packaged"]
    assert table[-2:] == [f"store: {stranger}", f"packaged: {PACKAGED} (read-only)"]
    rows = {row["name"]: row for row in json.loads(call("list", "--json").out)}
    assert rows[EMBEDDED]["folder"] == str(PACKAGED / EMBEDDED)
    assert rows[EMBEDDED]["packaged"] is True
    assert not stranger.exists(), "reading makes no folder"


def test_a_packaged_model_is_not_removed_and_there_is_no_prompt(call: Call, stranger: Path) -> None:
    line = one_line(call("remove", EMBEDDED), 1)
    assert line == (
        f"'{EMBEDDED}' is packaged with prunepool, in {PACKAGED}, and read-only; "
        f"only models in {stranger} can be removed"
    )


def test_what_is_added_goes_to_the_user_or_into_a_store_that_is_there(
    call: Call, weights: Path, stranger: Path
) -> None:
    added = ("add", str(weights), "--architecture", "deit_tiny_patch16_224", "--name", "mine")
    assert call(*added).out.startswith(f"mine added to {stranger}: ")
    assert "mine" in call("list").out
    Path("model_store").mkdir()
    assert "mine" not in call("list").out, "the store of the working directory is the store"
    assert call(*added).out.startswith("mine added to model_store: ")
    assert call("remove", "mine", "--yes").status == 0
    assert (stranger / "mine" / "model.json").is_file()


def test_a_packaged_name_is_taken_until_forced(call: Call, weights: Path, stranger: Path) -> None:
    add = ("add", str(weights), "--architecture", "deit_tiny_patch16_224", "--name", EMBEDDED)
    assert one_line(call(*add), 1).startswith(
        f"a model '{EMBEDDED}' is packaged with prunepool; use --force to let "
    )
    assert call(*add, "--force").status == 0
    rows = {row["name"]: row["folder"] for row in json.loads(call("list", "--json").out)}
    assert rows[EMBEDDED] == str(stranger / EMBEDDED)


def test_one_broken_model_does_not_hide_the_others(call: Call, store: ModelStore) -> None:
    (store.root / "broken").mkdir()
    (store.root / "broken" / "model.json").write_text("{}")
    rows = {row["name"]: row for row in json.loads(call("list", "--json").out)}
    assert rows["broken"]["error"].endswith("model.json: name is missing (and 10 more)")
    assert rows[EMBEDDED]["classes"] == 10
    assert call("list").out.count("\n") >= 3


def test_an_empty_store_names_its_folder(call: Call, tmp_path: Path) -> None:
    result = call("list", "--model-store", str(tmp_path / "none"))
    assert result.status == 0
    assert result.out.startswith(f"no models in {tmp_path / 'none'}, because the folder does not exist; ")
    assert json.loads(call("list", "--json", "--model-store", str(tmp_path / "none")).out) == []


def test_the_option_wins_over_the_environment(call: Call, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert call("list", "--model-store", str(tmp_path / "other")).out.startswith("no models in ")


def test_a_folder_of_transformers_is_added_by_its_name_and_options_overrule_it(
    call: Call, store: ModelStore, root: Path
) -> None:
    folder = root / "tests" / "models" / "transformers" / "vit"
    done = call("add", str(folder), "--mean", "0.25", "--crop-mode", "border")
    assert done.out.startswith("vit added to ")
    assert "the crop 1 of the long side, with borders at the short one; mean 0.25, 0.25, 0.25" in done.out
    manifest = store.verify("vit").manifest
    assert (manifest.mean, manifest.std, manifest.crop_mode) == ((0.25,) * 3, (0.5,) * 3, "border")
    assert (manifest.labels[4], manifest.origin, manifest.input_size) == ("yak", "folder vit", 32)
    assert "patch_size 8, embed_dim 24, depth 4, num_heads 3" in call("show", "vit").out


def test_show_says_that_auto_leaves_a_model_alone_that_was_not_measured(
    call: Call, store: ModelStore
) -> None:
    store.update_manifest(EMBEDDED, store.open(EMBEDDED).manifest, {"profile": None})
    shown = call("show", EMBEDDED).out
    assert "default 0.0, at most 0.8724" in shown
    assert "0, for what it would lose was not measured" in shown


def test_show_has_every_figure(call: Call, store: ModelStore) -> None:
    shown = call("show", EMBEDDED).out
    lines = dict(line.split("  ", 1) for line in shown.splitlines() if "  " in line)
    lines = {key: value.strip() for key, value in lines.items()}
    assert lines["parameters"] == "5,526,346"
    assert lines["reduction ratio"] == "default 0.5, at most 0.8724"
    assert lines["licence"] == "Apache-2.0"
    assert lines["sha256"] == store.open(EMBEDDED).manifest.weights.sha256
    assert lines["classes"].startswith("10: tench, English springer, cassette player")


def test_show_as_json_has_the_manifest(call: Call, store: ModelStore) -> None:
    shown = json.loads(call("show", EMBEDDED, "--json").out)
    model = store.open(EMBEDDED)
    assert Manifest.model_validate(shown["manifest"]) == model.manifest
    assert shown["max_reduction_ratio"] == 0.8724
    assert shown["folder"] == str(model.folder)


def test_show_takes_a_folder(call: Call, store: ModelStore) -> None:
    shown = json.loads(call("show", str(store.root / EMBEDDED), "--json").out)
    assert shown["manifest"]["name"] == EMBEDDED


def test_show_has_the_profile(call: Call, store: ModelStore) -> None:
    points = (
        ProfilePoint(
            ratio=0,
            gmacs=1.25,
            top1=0.97,
            intervals={"top1": (0.95, 0.99)},
            validation={"top1": 0.64, "top5": 0.8, "images": 398, "of": "hard ones"},  # type: ignore[arg-type]
        ),
        ProfilePoint(
            ratio=0.5,
            gmacs=0.9,
            images=1000,
            method="fuse",
            blocks=(3, 6, 9),
            removed=(50, 30, 18),
            thresholds=(0, 0, 0),
            speed={"speedup": 1.2, "device": "cpu", "dtype": "float32", "batch": 32},
            formats={"int8": {"images": 500, "agreement": 0.992}},  # type: ignore[call-arg]
            noted={"by": ["me", "you"]},  # type: ignore[call-arg]
        ),
    )
    store.update_manifest(EMBEDDED, store.open(EMBEDDED).manifest, {"profile": points})
    out = call("show", EMBEDDED).out
    table = [" ".join(line.split()) for line in out.splitlines()]
    assert "ratio gmacs method top1 images speed plan noted" in table
    assert "0 1.25 97.0 % (95 to 99)" in table
    assert "0.5 0.9 fuse 1000 ×1.20 (cpu, float32, batch 32) 3:50 6:30 9:18 by me, you" in table
    assert "0.5 int8 99.2 % 500" in table
    assert "at ratio 0 on 398 hard ones: top1 64.0 %, top5 80.0 %" in table
    assert any(line.startswith("top1, top5: right, in percent; ") for line in table)
    assert not set("[]{}") & set(out), "a Python value"


def test_show_of_a_model_that_is_not_there(call: Call, store: ModelStore) -> None:
    assert one_line(call("show", "none"), 1) == f"no model 'none' in {store.root}; it has {EMBEDDED}"


def test_show_of_a_broken_manifest(call: Call, store: ModelStore) -> None:
    path = store.root / EMBEDDED / "model.json"
    path.write_text(path.read_text().replace('"crop_pct": 0.9', '"crop_pct": 9'))
    assert one_line(call("show", EMBEDDED), 1) == (
        f"{path}: crop_pct is 9: input should be less than or equal to 1"
    )


def test_show_of_weights_that_are_no_vision_transformer(call: Call, store: ModelStore) -> None:
    save_file({"a": np.zeros(3, np.float32)}, store.root / EMBEDDED / "model.safetensors")
    assert one_line(call("show", EMBEDDED), 1).endswith("has no patch_embed.proj.weight")


def test_verify_says_ok(call: Call) -> None:
    assert call("verify") == Result(0, f"{EMBEDDED}: ok\n", "")
    assert call("verify", EMBEDDED) == Result(0, f"{EMBEDDED}: ok\n", "")
    assert json.loads(call("verify", "--json").out) == [{"name": EMBEDDED, "ok": True, "error": None}]


def test_verify_finds_a_changed_bit(call: Call, weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    message = one_line(call("verify"), 1)
    assert message.startswith(f"{weights}: has sha256 ")
    assert message.count("sha256") == 1
    assert "but model.json records af38f193" in message
    result = call("verify", "--json")
    assert result.status == 1
    assert json.loads(result.out)[0]["ok"] is False


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", ["one"] * 9, "labels of its model.json is 9, but head.weight has 10 classes"),
        ("labels", ["one"] * 11, "labels of its model.json is 11, but head.weight has 10 classes"),
        ("input_size", 384, "input_size of its model.json is 384, but that makes 576 patches"),
        ("name", "other", "name is 'other': in a store it must be that of its folder"),
        ("crop_pct", 0, "crop_pct is 0: input should be greater than"),
    ],
)
def test_verify_finds_what_the_manifest_says_wrongly(
    call: Call, store: ModelStore, key: str, value: object, message: str
) -> None:
    path = store.root / EMBEDDED / "model.json"
    document = json.loads(path.read_text())
    document.pop("geometry", None)
    path.write_text(json.dumps(document | {key: value}))
    assert message in one_line(call("verify"), 1)


def test_verify_of_a_store_that_is_not_there(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("nowhere", "the folder does not exist"), ("file", "it is not a folder")):
        message = one_line(call("verify", "--model-store", str(tmp_path / name)), 1)
        assert message == f"no models in {tmp_path / name}: {why}"


def test_an_installation_without_its_models_is_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a wheel that was built without them."""
    monkeypatch.delenv("PRUNEPOOL_MODEL_STORE")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("prunepool.store.locations.PACKAGED", tmp_path / "nowhere")
    where = tmp_path / "data" / "prunepool" / "models"
    assert one_line(call("verify"), 1) == f"no models in {where}: the folder does not exist"
    assert one_line(call("show", EMBEDDED), 1).endswith("; the folder does not exist")
    assert call("list").out.startswith(f"no models in {where}, because the folder does not exist; ")


def test_what_a_manifest_says_cannot_control_the_terminal(call: Call, store: ModelStore) -> None:
    path = store.root / EMBEDDED / "model.json"
    escape = "\x1b[31mred\u2028\x9b"
    document = json.loads(path.read_text()) | {"licence": escape, "origin": escape, "labels": [escape] * 10}
    path.write_text(json.dumps(document))
    for command in (("list",), ("show", EMBEDDED), ("show", EMBEDDED, "--json"), ("verify",)):
        result = call(*command)
        assert result.status == 0
        assert not set("\x1b\u2028\x9b") & set(result.out + result.err)
    assert json.loads(call("show", EMBEDDED, "--json").out)["manifest"]["licence"] == escape


def test_a_file_whose_name_is_no_unicode_is_added(
    call: Call, store: ModelStore, weights: Path, tmp_path: Path
) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    source.write_bytes(weights.read_bytes())
    assert call("add", str(source), "--name", "mine", "--architecture", "deit_tiny_patch16_224").status == 0
    assert store.open("mine").manifest.origin == r"file caf\xe9.safetensors"


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_interpolation_is_added(
    call: Call, store: ModelStore, weights: Path, interpolation: str
) -> None:
    description = (
        "--name",
        "mine",
        "--architecture",
        "deit_tiny_patch16_224",
        "--interpolation",
        interpolation,
    )
    assert call("add", str(weights), *description).status == 0
    assert store.open("mine").manifest.interpolation == interpolation


def test_verify_looks_at_all_though_one_is_broken(call: Call, store: ModelStore) -> None:
    (store.root / "broken").mkdir()
    (store.root / "broken" / "model.json").write_text("{}")
    result = call("verify")
    assert result.status == 1
    assert result.out == f"{EMBEDDED}: ok\n"
    assert "broken/model.json: name is missing" in result.err


def test_verify_of_a_model_that_is_not_there(call: Call) -> None:
    assert one_line(call("verify", "none"), 1).startswith("no model 'none' in ")


def test_remove_with_yes(call: Call, store: ModelStore) -> None:
    assert call("remove", EMBEDDED, "--yes") == Result(0, f"{EMBEDDED} removed\n", "")
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y\n", 0, ()), ("n\n", 1, (EMBEDDED,)), ("\n", 1, (EMBEDDED,))]
)
def test_remove_asks_for_confirmation(
    store: ModelStore, answer: str, status: int, left: tuple[str, ...]
) -> None:
    result = prunepool("remove", EMBEDDED, "--model-store", str(store.root), stdin=answer)
    assert result.returncode == status
    assert "and its weights? [y/N]" in result.stderr
    assert store.names() == left


def test_remove_without_an_answer_keeps_the_model(store: ModelStore) -> None:
    assert prunepool("remove", EMBEDDED, "--model-store", str(store.root), stdin="").returncode != 0
    assert store.names() == (EMBEDDED,)


def test_remove_with_json_needs_yes(call: Call, store: ModelStore) -> None:
    refusal = one_line(call("remove", EMBEDDED, "--json"), 2)
    assert refusal.startswith("--json does not ask for confirmation, so it needs --yes")
    assert store.names() == (EMBEDDED,)
    assert json.loads(call("remove", EMBEDDED, "--json", "--yes").out) == {"removed": EMBEDDED}


@pytest.mark.parametrize("name", ["none", "..", "../store", "."])
def test_remove_of_what_is_no_model_of_the_store(call: Call, store: ModelStore, name: str) -> None:
    assert one_line(call("remove", name, "--yes"), 1).startswith(f"no model '{name}' in ")
    assert store.names() == (EMBEDDED,)


def test_add_takes_timms_settings_where_none_are_given(call: Call, store: ModelStore, weights: Path) -> None:
    result = call("add", str(weights), "--name", "mine", "--architecture", "deit_tiny_patch16_224")
    assert result == Result(
        0,
        f"mine added to {store.root}: deit_tiny_patch16_224, 10 classes, 5,526,346 parameters, "
        "licence unknown\n"
        "its images are resized (bicubic) and cropped to 224², the crop 0.9 of the short side; "
        "mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225\n",
        "note: its classes are called 'class 0' … 'class 9'; --labels names them\n",
    )
    manifest = store.verify("mine").manifest
    assert (manifest.mean, manifest.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (manifest.crop_pct, manifest.interpolation, manifest.input_size) == (0.9, "bicubic", 224)
    assert manifest.origin == "file model.safetensors"


def test_add_takes_what_is_given(call: Call, store: ModelStore, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    options = "--mean 0.5 --std 0.5,0.4,0.3 --crop-pct 1 --interpolation bilinear --licence MIT --origin lab"
    result = call(
        *("add", str(weights), "--name", "mine", "--architecture", "deit_tiny_patch16_224.fb_in1k"),
        *("--labels", str(tmp_path / "labels.txt"), "--json", *options.split()),
    )
    assert result.err == ""
    assert json.loads(result.out)["licence"] == "MIT"
    manifest = store.verify("mine").manifest
    assert manifest.architecture == "deit_tiny_patch16_224"
    assert manifest.labels == tuple("abcdefghij")
    assert (manifest.mean, manifest.std) == ((0.5, 0.5, 0.5), (0.5, 0.4, 0.3))
    assert (manifest.crop_pct, manifest.interpolation, manifest.origin) == (1.0, "bilinear", "lab")


def test_add_needs_force_to_replace(call: Call, store: ModelStore, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    arguments = ("add", str(copy), "--name", EMBEDDED, "--architecture", "deit_tiny_patch16_224")
    assert one_line(call(*arguments), 1) == (
        f"{store.root} already has a model '{EMBEDDED}'; use --force to replace it, or --name to choose "
        "another"
    )
    assert call(*arguments, "--force").status == 0
    assert store.verify(EMBEDDED).manifest.licence == "unknown"


def test_add_of_weights_of_another_model(
    call: Call, store: ModelStore, tmp_path: Path, weights: Path
) -> None:
    fewer = {key: value for key, value in load_file(weights).items() if key != "norm.bias"}
    save_file(fewer, tmp_path / "in.safetensors")
    arguments = ("--name", "mine", "--architecture", "deit_tiny_patch16_224")
    assert one_line(call("add", str(tmp_path / "in.safetensors"), *arguments), 1).endswith(
        "at 224² with 10 classes: 1 missing (norm.bias)"
    )
    assert store.names() == (EMBEDDED,)


def test_add_of_an_architecture_that_timm_has_not(call: Call, weights: Path) -> None:
    message = one_line(call("add", str(weights), "--name", "mine", "--architecture", "deit_tinny"), 1)
    assert "has no architecture 'deit_tinny'" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show", "missing argument 'name'"),
        ("add none.pth --name x --architecture y", "'none.pth' does not exist"),
        ("add {weights} --architecture y", "a file of weights needs --name and --architecture"),
        ("add {weights} --name x", "a file of weights needs --name and --architecture"),
        ("add . --architecture y", "--architecture is for a file of weights"),
        ("list --colour", "no such option: --colour"),
        ("", "missing command"),
        ("frobnicate", "no such command 'frobnicate'"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(
    call: Call, weights: Path, arguments: str, message: str
) -> None:
    assert message in one_line(call(*arguments.format(weights=weights).split()), 2).lower()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--name", "../x", "name must be 1 to 100 letters, digits, dots, dashes or underscores"),
        ("--mean", "0.5,0.5", "--mean must be one number or three, from 0 to 1; got '0.5,0.5'"),
        ("--mean", "123.7", "--mean must be one number or three, from 0 to 1; got '123.7'"),
        ("--std", "0", "--std must be one number or three, from 1e-06 to 1; got '0'"),
        ("--std", "nan", "--std must be one number or three, from 1e-06 to 1; got 'nan'"),
        ("--std", "half", "--std must be one number or three, from 1e-06 to 1; got 'half'"),
        ("--crop-pct", "2", "--crop-pct must be from 0.01 to 1; got 2.0"),
        ("--crop-pct", "nan", "--crop-pct must be from 0.01 to 1; got nan"),
        ("--input-size", "3", "--input-size must be from 16 to 4096; got 3"),
        ("--labels", "none.txt", "Invalid value for '--labels': file 'none.txt' does not exist"),
    ],
)
def test_an_option_out_of_bounds_names_value_and_limit(
    call: Call, weights: Path, option: str, value: str, message: str
) -> None:
    options = {"--name": "x", "--architecture": "deit_tiny_patch16_224"} | {option: value}
    given = [part for pair in options.items() for part in pair]
    assert one_line(call("add", str(weights), *given), 2).startswith(message)


def test_labels_other_in_number_than_classes_are_a_wrong_call(
    call: Call, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.json").write_text('["a", "b"]')
    arguments = ("--name", "mine", "--architecture", "deit_tiny_patch16_224", "--labels", "labels.json")
    assert one_line(call("add", str(weights), *arguments), 2) == (
        "labels must be 10, one for each row of head.weight; got '2 labels'"
    )


def prunepool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`prunepool models …` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from prunepool.cli import main; main()", "models", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )


@pytest.mark.parametrize("command", [["list"], ["show", EMBEDDED], ["verify"], ["remove", EMBEDDED, "--yes"]])
def test_what_can_do_without_torch_does(store: ModelStore, command: list[str]) -> None:
    code = (
        "import sys; from prunepool.cli import run; status = run(sys.argv[1:]); "
        "sys.exit(status or bool({'torch', 'timm', 'huggingface_hub'} & sys.modules.keys()))"
    )
    arguments = ["models", *command, "--model-store", str(store.root)]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 0
