"""The manifest: what it may say, and how it says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.errors import ManifestInvalid
from prunepool.model_names import NAME_PATTERN, reserved_suffix
from prunepool.reduction.plan import DENSE
from prunepool.store import Geometry, Manifest, ProfilePoint, ReductionDefaults, Weights
from prunepool.store.manifest_file import parse, read, render, write

shares = st.floats(0, 1)
ratios = st.floats(0, 1, exclude_max=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
counts = st.integers(1, 10**10)
blocks = st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True).map(sorted).map(tuple)


@st.composite
def reductions(draw: st.DrawFn) -> ReductionDefaults:
    chosen = draw(st.none() | blocks)
    stages = 3 if chosen is None else len(chosen)
    numbers = st.lists(st.floats(0, 1e3), min_size=stages, max_size=stages).map(tuple)
    default, maximum = sorted((draw(ratios), draw(ratios)))
    return ReductionDefaults(
        blocks=chosen,
        thresholds=draw(st.none() | numbers),
        default_ratio=default,
        max_ratio=draw(st.sampled_from([None, maximum])),
    )


points = st.builds(
    ProfilePoint,
    ratio=ratios,
    gmacs=st.floats(0, 1e6, exclude_min=True),
    top1=st.none() | shares,
    agreement=st.none() | shares,
    method=st.none() | texts,
    blocks=st.none() | blocks,
    images=st.none() | counts,
    intervals=st.none() | st.dictionaries(texts, st.tuples(shares, shares), max_size=2),
)
profiles = st.lists(points, max_size=3, unique_by=lambda point: point.ratio).map(
    lambda found: tuple(sorted(found, key=lambda point: point.ratio))
)
std = st.floats(1e-6, 1)
manifests = st.builds(
    Manifest,
    name=st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: reserved_suffix(name) is None),
    architecture=st.from_regex(r"[a-z0-9_]{1,200}", fullmatch=True),
    input_size=st.integers(16, 4096),
    mean=st.tuples(shares, shares, shares),
    std=st.tuples(std, std, std),
    crop_pct=st.floats(0.01, 1),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
    crop_rounding=st.sampled_from(["even", "down"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    labels=st.lists(texts, min_size=1, max_size=5).map(tuple),
    licence=texts,
    origin=texts,
    weights=st.builds(
        Weights,
        file=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,50}\.safetensors", fullmatch=True),
        sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        dtype=st.sampled_from(["float64", "float32", "bfloat16", "float16", "mixed"]),
        parameters=counts,
    ),
    reduction=reductions(),
    profile=st.none() | profiles,
)


POINT = {"gmacs": 1.0, "method": "fuse", "blocks": [3], "thresholds": [0]}


def test_only_points_with_a_plan_say_how_the_model_is_reduced(document: dict[str, Any]) -> None:
    figures = {"ratio": 0.25, "gmacs": 1.1, "top1": 0.9}
    document["profile"] = [{"ratio": 0.1, "removed": [20], **POINT}, figures]
    manifest = parse(json.dumps(document).encode(), "model.json")
    assert [point.ratio for point in manifest.planned] == [0.1]


def test_the_papers_own_setting_takes_nothing_from_the_profile(document: dict[str, Any]) -> None:
    document["profile"] = [{"ratio": 0.1, "removed": [20], **POINT}]
    document["reduction"] = {"method": "ppt-paper"}
    assert parse(json.dumps(document).encode(), "model.json").planned == ()


@given(manifests)
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    assert parse(render(manifest), "model.json") == manifest


def test_a_point_of_the_profile_keeps_keys_of_later_releases(document: dict[str, Any]) -> None:
    document["profile"] = [{"ratio": 0.5, "gmacs": 0.8, "joules": 0.02}]
    again = json.loads(render(parse(json.dumps(document).encode(), "model.json")))
    assert again["profile"] == document["profile"]


def test_reduction_may_be_left_out(document: dict[str, Any]) -> None:
    del document["reduction"]
    assert parse(json.dumps(document).encode(), "model.json").reduction == ReductionDefaults()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2: input should be 1"),
        ({"name": "../up"}, "name is '../up': string should match pattern"),
        ({"name": "a_jpeg"}, "name is 'a_jpeg': must not end in _jpeg, under which /v2 serves the encoded"),
        ({"architecture": "deit.fb_in1k"}, "architecture is 'deit.fb_in1k': string should match"),
        ({"input_size": 8}, "input_size is 8: input should be greater than or equal to 16"),
        ({"input_size": "224"}, "input_size is '224': input should be a valid integer"),
        ({"mean": [123.7, 0, 0]}, "mean[0] is 123.7: input should be less than or equal to 1"),
        ({"mean": [0.5]}, "mean[1] is missing (and 1 more)"),
        ({"std": [0, 1, 1]}, "std[0] is 0: input should be greater than or equal to 0.000001"),
        ({"std": [1e-30, 1, 1]}, "std[0] is 1e-30: input should be greater than or equal to 0.000001"),
        ({"crop_pct": 1e-6}, "crop_pct is 1e-06: input should be greater than or equal to 0.01"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5: input should be less than or equal to 1"),
        ({"crop_mode": "pad"}, "crop_mode is 'pad': input should be 'center', 'squash' or 'border'"),
        ({"interpolation": "magic"}, "interpolation is 'magic': input should be 'nearest', 'bilinear'"),
        ({"labels": []}, "labels is []: one for each class, or a geometry of a network without any"),
        ({"labels": ["cat", ""]}, "labels[1] is '': string should have at least 1 character"),
        ({"labels": ["cat", 3]}, "labels[1] is 3: input should be a valid string"),
        ({"colour": "red"}, "colour is not a known key"),
        ({"licence": None}, "licence is None: input should be a valid string"),
        ({"profile": [{"ratio": 0.5}]}, "profile[0].gmacs is missing"),
        ({"profile": [{"ratio": 1, "gmacs": 1}]}, "profile[0].ratio is 1: input should be less than 1"),
        (
            {"profile": [{"ratio": r, "gmacs": 1} for r in (0.5, 0.3)]},
            "profile is [{'ratio': 0.5, 'gmacs': 1}, {'ratio': 0.3, 'gmacs': 1}]: the ratios of its points must",
        ),
        (
            {"profile": [{"ratio": 0.5, "gmacs": 1, "removed": [9]}]},
            "profile[0] is {'ratio': 0.5, 'gmacs': 1, 'removed': [9]}: removed needs a method",
        ),
    ],
)
def test_an_error_is_one_line_with_file_key_value_and_limit(
    document: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(json.dumps(document | change).encode(), "store/tiny/model.json")
    assert caught.value.detail.startswith(f"store/tiny/model.json: {message}")
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    "file",
    ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", ".safetensors", "model.pth", ""],
)
def test_weights_cannot_be_outside_the_folder_nor_pickled(document: dict[str, Any], file: str) -> None:
    document["weights"]["file"] = file
    with pytest.raises(ManifestInvalid, match=r"weights\.file is '.*': string should match pattern"):
        parse(json.dumps(document).encode(), "model.json")


@pytest.mark.parametrize(
    ("reduction", "message"),
    [
        ({"blocks": [6, 3]}, "blocks must be one or more ascending block indices"),
        ({"blocks": []}, "blocks must be one or more ascending block indices"),
        ({"thresholds": [7e-5]}, "thresholds must be 3 numbers, one for each reducing block"),
        ({"blocks": [3, 6], "thresholds": [1, 1, 1]}, "thresholds must be 2 numbers"),
        ({"method": "fuse", "thresholds": [1, 1, 1]}, "fuse has no thresholds"),
        ({"default_ratio": 0.8, "max_ratio": 0.6}, "default_ratio 0.8 must not exceed max_ratio 0.6"),
    ],
)
def test_reduction_defaults_must_make_a_plan(
    document: dict[str, Any], reduction: dict[str, Any], message: str
) -> None:
    document["reduction"] = reduction
    with pytest.raises(ManifestInvalid) as caught:
        parse(json.dumps(document).encode(), "model.json")
    assert caught.value.detail.startswith(f"model.json: reduction is {reduction}: {message}")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_are_finite(document: dict[str, Any], number: str) -> None:
    text = json.dumps(document).replace("0.9", number)
    with pytest.raises(ManifestInvalid, match=r"model\.json: (crop_pct is|is not JSON)"):
        parse(text.encode(), "model.json")


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": "x",}', b"\xff\xfe", b"model"])
def test_what_is_not_json_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ManifestInvalid, match=r"^model\.json: is not JSON: ") as caught:
        parse(content, "model.json")
    assert "\n" not in caught.value.detail


def test_json_that_is_no_object_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match=r"^model\.json: the document is 3: "):
        parse(b"3", "model.json")


@pytest.mark.parametrize(("found", "twice"), [('"name":', "name"), ('"sha256":', "sha256")])
def test_a_key_that_is_there_twice_is_refused(document: dict[str, Any], found: str, twice: str) -> None:
    """Readers differ in which one they take."""
    value = '"tiny"' if twice == "name" else f'"{"0" * 64}"'
    text = json.dumps(document).replace(found, f"{found} {value}, {found}")
    with pytest.raises(ManifestInvalid, match=rf"^model\.json: {twice} is there twice$"):
        parse(text.encode(), "model.json")


def test_a_long_value_is_cut_short(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(json.dumps(document | {"name": "x" * 10_000}).encode(), "model.json")
    assert len(caught.value.detail) < 300


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=r"model\.json: cannot be read \(No such file"):
        read(tmp_path / "model.json")


def test_a_value_put_in_past_validation_is_not_written(document: dict[str, Any], tmp_path: Path) -> None:
    manifest = Manifest.model_validate(document).model_copy(update={"crop_pct": 7.0})
    with pytest.raises(ManifestInvalid, match=r"tiny/model\.json: crop_pct is 7\.0"):
        write(manifest, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_cannot_be_changed_in_place(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        Manifest.model_validate(document).name = "other"


GEOMETRY = {
    "depth": 12,
    "width": 192,
    "heads": 3,
    "mlp_width": 768,
    "patch_size": [16, 16],
    "patch_grid": [14, 14],
    "prefix_tokens": 1,
    "classes": 2,
}


def test_a_manifest_says_what_plans_and_costs_depend_on(document: dict[str, Any]) -> None:
    manifest = parse(json.dumps(document | {"geometry": GEOMETRY}).encode(), "model.json")
    assert manifest.geometry == Geometry.model_validate(GEOMETRY)
    assert (manifest.geometry.patches, manifest.geometry.tokens) == (196, 197)
    assert json.loads(render(manifest))["geometry"] == GEOMETRY


def test_a_network_without_classes_has_no_labels(document: dict[str, Any]) -> None:
    geometry = GEOMETRY | {"classes": 0, "pool": "map", "gated_mlp": True, "prefix_tokens": 0}
    manifest = parse(json.dumps(document | {"geometry": geometry, "labels": []}).encode(), "model.json")
    assert manifest.geometry is not None
    assert (manifest.labels, manifest.geometry.outputs) == ((), 192)
    assert json.loads(render(manifest))["geometry"] == geometry
    with pytest.raises(ManifestInvalid, match="classes must be a multiple of the 2 labels; got 0"):
        parse(json.dumps(document | {"geometry": geometry}).encode(), "model.json")


def test_a_third_matrix_and_attention_pooling_cost(document: dict[str, Any]) -> None:
    plain, gated, pooled, hybrid = (
        Geometry.model_validate(GEOMETRY | more)
        for more in ({}, {"gated_mlp": True}, {"pool": "map"}, {"stem_macs": 10**9})
    )
    per_matrix = 12 * 197 * 192 * 768
    assert gated.gmacs(DENSE) - plain.gmacs(DENSE) == pytest.approx(per_matrix / 1e9)
    head = 2 * 197 * 192**2 + 2 * 197 * 192 + 192**2 + 2 * 192 * 768
    assert pooled.gmacs(DENSE) - plain.gmacs(DENSE) == pytest.approx(head / 1e9)
    assert hybrid.gmacs(DENSE) - plain.gmacs(DENSE) == pytest.approx(1 - 196 * 768 * 192 / 1e9)


def test_a_manifest_of_an_older_release_has_no_geometry(document: dict[str, Any]) -> None:
    manifest = parse(json.dumps(document).encode(), "model.json")
    assert manifest.geometry is None
    assert b"geometry" not in render(manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_grid": [7, 14]}, r"model.json: geometry.patch_grid must be \[14, 14\]: .*; got \[7, 14\]"),
        ({"patch_size": [32, 16]}, r"geometry.patch_grid must be \[7, 14\]: .*; got \[14, 14\]"),
        ({"classes": 3}, "geometry.classes must be a multiple of the 2 labels; got 3"),
        ({"depth": 3}, "geometry.depth must be at least 4; got 3"),
        ({"width": 0}, "geometry.width is 0: input should be greater than 0"),
        ({"width": 1 << 30}, "geometry.width is 1073741824: input should be less than or equal to 1048576"),
        ({"depth": 10**9}, "geometry.depth is 1000000000: input should be less than or equal to 1000"),
        ({"hidden": 768}, "geometry.hidden is not a known key"),
    ],
)
def test_a_geometry_of_another_network_is_refused(
    document: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        parse(json.dumps(document | {"geometry": GEOMETRY | change}).encode(), "model.json")
