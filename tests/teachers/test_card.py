import re
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.teachers.card_files import CARD, publish, write
from tinymim.errors import TinymimError
from tinymim.teachers import card as cards
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton

PUBLISHED = {
    # width, depth, heads, patch, and millions of parameters of the encoder as the authors or timm's model cards count
    "mae_vitb16": (768, 12, 12, 16, 85.8),
    "mae_vitl16": (1024, 24, 16, 16, 303.3),
    "mae_vith14": (1280, 32, 16, 14, 630.8),
    "beit_vitb16": (768, 12, 12, 16, 85.8),
    "beit_vitl16": (1024, 24, 16, 16, 303.4),
    "beitv2_vitb16": (768, 12, 12, 16, 85.8),
    "beitv2_vitl16": (1024, 24, 16, 16, 303.4),
    "beit_vitb16_ft22k": (768, 12, 12, 16, 102.6),
    "beit_vitl16_ft22k": (1024, 24, 16, 16, 325.8),
    "beitv2_vitb16_ft22k": (768, 12, 12, 16, 102.6),
    "beitv2_vitl16_ft22k": (1024, 24, 16, 16, 325.8),
    "data2vec_vitb16": (768, 12, 12, 16, 85.8),
    "data2vec_vitl16": (1024, 24, 16, 16, 303.4),
    "simmim_vitb16": (768, 12, 12, 16, 85.8),
    "eva02_vitt14": (192, 12, 3, 14, 5.5),
    "eva02_vits14": (384, 12, 6, 14, 21.6),
    "eva02_vitb14": (768, 12, 12, 14, 85.8),
    "eva02_vitl14": (1024, 24, 16, 14, 303.3),
    "eva02_vitl14_m38m": (1024, 24, 16, 14, 303.3),
    "ibot_vits16": (384, 12, 6, 16, 21.7),
    "ibot_vitb16": (768, 12, 12, 16, 85.8),
    "ibot_vitl16": (1024, 24, 16, 16, 303.3),
    "dinov2_vits14": (384, 12, 6, 14, 21.6),
    "dinov2_vitb14": (768, 12, 12, 14, 85.7),
    "dinov2_vitl14": (1024, 24, 16, 14, 303.2),
    "dinov2_vitg14": (1536, 40, 24, 14, 1134.8),
    "dinov2_reg_vits14": (384, 12, 6, 14, 21.6),
    "dinov2_reg_vitb14": (768, 12, 12, 14, 85.7),
    "dinov2_reg_vitl14": (1024, 24, 16, 14, 303.2),
    "dinov2_reg_vitg14": (1536, 40, 24, 14, 1134.8),
    "dinov3_vits16": (384, 12, 6, 16, 21.6),
    "dinov3_vits16plus": (384, 12, 6, 16, 28.7),
    "dinov3_vitb16": (768, 12, 12, 16, 85.6),
    "dinov3_vitl16": (1024, 24, 16, 16, 303.1),
    "dinov3_vith16plus": (1280, 32, 20, 16, 840.5),
    "ijepa_vith14": (1280, 32, 16, 14, 630.8),
    "siglip2_vitb16": (768, 12, 12, 16, 85.8),
    "siglip2_so400m14": (1152, 27, 16, 14, 412.4),
    "aimv2_vitl14": (1024, 24, 8, 14, 309.2),
    "aimv2_vith14": (1536, 24, 12, 14, 680.9),
    "tinymim_vitt16": (192, 12, 6, 16, 5.5),
    "tinymim_vits16": (384, 12, 6, 16, 21.7),
    "tinymim_vitb16": (768, 12, 12, 16, 85.8),
    "tinymim_vitt16_star": (192, 12, 12, 16, 5.5),
    "vitb16_augreg": (768, 12, 12, 16, 86.6),
    "digits_mae": (192, 6, 6, 4, 2.7),
    "fashion_mae": (256, 8, 8, 4, 6.4),
}
"""DINOv2's positions are counted at 224."""

SAW_LABELS = {"vitb16_augreg", "tinymim_vitt16_star"} | {name for name in PUBLISHED if name.endswith("_ft22k")}
OURS = {"digits_mae", "fashion_mae"}
NONCOMMERCIAL = {name for name in PUBLISHED if name.startswith(("mae_", "data2vec_", "ijepa_"))}
LAST_HEADS = {"tinymim_vitt16": 12, "tinymim_vits16": 12, "tinymim_vitb16": 16}


def of_the_project():
    return {path.stem: path for path in (cards.files.shipped("teachers")).glob("*.yaml")}


def test_cards__are_those_of_the_published_table():
    assert of_the_project().keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_cards__build_as_published_and_say_everything(name):
    card = cards.read(of_the_project()[name])
    network = skeleton(card.architecture)
    width, depth, heads, patch, millions = PUBLISHED[name]
    assert (network.width, network.depth, network.heads[0], network.patch[0]) == (width, depth, heads, patch)
    assert network.heads[-1] == LAST_HEADS.get(name, heads)
    assert card.architecture.heads in (network.heads, heads)  # a card states its head layout
    count = sum(parameter.numel() for parameter in network.vit.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)
    assert network.image_size == ((32, 32) if name in OURS else (224, 224))
    registers = 4 if "_reg_" in name or name.startswith("dinov3") else 1 if name.endswith("star") else 0
    assert network.prefix == (0 if name.startswith(("ijepa", "siglip", "aimv2")) else 1 + registers)
    assert network.classes == (1000 if name == "vitb16_augreg" else 21841 if name.endswith("_ft22k") else None)
    assert card.name == name
    assert card.target_block is None or 1 <= card.target_block <= depth
    assert card.labels_seen == (name in SAW_LABELS)
    assert ("not for commercial use" in cards.terms(card.licence)) == (name in NONCOMMERCIAL)
    assert card.address or card.page or card.rebuild
    assert bool(card.rebuild) == (name in OURS)
    assert (card.sha256 is None) != (name in OURS and card.place.is_file()), "weights that are shipped, and no others"
    assert "arXiv" in card.citation


def test_cards__weights_files_are_told_apart_by_their_names():
    names = [cards.read(path).file for path in of_the_project().values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "mean"),
    [("beit_vitb16", 0.5), ("beitv2_vitb16", 0.485), ("data2vec_vitl16", 0.485), ("eva02_vitt14", 0.48145466)],
)
def test_cards__input_means_differ_between_families(name, mean):
    assert cards.read(of_the_project()[name]).architecture.mean[0] == mean


@pytest.mark.parametrize("name", ["beit_vitb16", "beitv2_vitl16", "data2vec_vitb16", "simmim_vitb16"])
def test_cards__authors_files_share_one_table_of_relative_positions(name):
    vit = skeleton(cards.read(of_the_project()[name]).architecture).vit
    tables = [key for key in vit.state_dict() if "bias_table" in key]
    assert tables == ["rel_pos_bias.relative_position_bias_table"]


def test_read__input_of_pixel_values_is_refused(home):
    for name, value, words in (("mean", 123.7, "is not in"), ("std", 58.4, "10 at most; divide by 255")):
        path = write(home.cwd, {"architecture": {**CARD["architecture"], name: [value] * 3}})
        with pytest.raises(TinymimError, match=rf"architecture\.{name}: {value} .*{words}"):
            cards.read(path)


def test_read__fields(home):
    path = write(home.cwd, {"target_block": 2, "labels_seen": True, "note": "small"})
    expected = {**CARD, "architecture": Architecture(**CARD["architecture"]), "path": path}
    expected |= {"target_block": 2, "labels_seen": True, "note": "small"}
    assert cards.read(path) == cards.Card(**expected)


def test_read__a_recipe_is_no_card_and_names_the_runs_checkpoint(home):
    recipe = home.cwd / "config.yaml"
    recipe.write_text("model: {}\ndata: {}\ntrainer: {}\n")
    with pytest.raises(
        TinymimError, match=r"^teacher: .*config.yaml is a recipe, and no teacher card; .*such as RUN/ch"
    ):
        cards.read(recipe)
    (home.cwd / "checkpoints").mkdir()
    (home.cwd / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(TinymimError, match=f"of its run, {home.cwd}/checkpoints/last.ckpt$"):
        cards.find(str(recipe))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"licens": "MIT", "shape": 3},
            "there is no field 'licens' .did you mean licence.., 'shape'; there are .*licence",
        ),
        ({"licence": ...}, "licence missing or empty"),
        ({"licence": "", "source": ...}, "licence, source missing or empty"),
        ({"architecture": ...}, "architecture"),
        ({"architecture": {"hedas": 3}}, "hedas"),
        ({"architecture": None}, "architecture|mapping"),
        ({"hub": "timm/model"}, "hub: 'timm/model' is not owner/repository/file"),
        ({"hub": "a--b/c/d"}, "hub: 'a--b/c/d' is not owner/repository/file: .*--"),
        ({"hub": "-a/b/c"}, "hub: '-a/b/c' is not owner/repository/file"),
        ({"hub": f"a/{'b' * 97}/c"}, "hub: 'a/b+.* is not owner/repository/file"),
        ({"hub": "a/../../etc/passwd"}, "hub: 'a/../../etc/passwd' is not owner/repository/file$"),
        ({"hub": "a/b/../c"}, "hub: 'a/b/../c' is not owner/repository/file$"),
        ({"file": "x" * 3000}, "file: 'x+... has 3000 bytes, and a file's name at most 255"),
        ({"file": "a/" + "é" * 128}, "file: .* has 256 bytes"),
        ({"url": "http://h:99999/x"}, "url: 'http://h:99999/x' is no address: Port out of range"),
        ({"url": "http://h:abc/x"}, "url: 'http://h:abc/x' is no address: Port could not be cast"),
        ({"url": "http://[::1/x"}, "url: 'http://.::1/x' is no address: Invalid IPv6 URL"),
        ({"url": "http:///x"}, "url: 'http:///x' is no address: it names no host"),
    ],
)
def test_read__mistakes_are_named(home, fields, words):
    path = write(home.cwd, fields)
    with pytest.raises(TinymimError, match=rf"teacher card .*small\.yaml.*({words})"):
        cards.read(path)


@pytest.mark.parametrize("text", [b"", b"name: [", b"- 1", b"just text", b"\xff\xfe\x00"])
def test_read__not_a_card(home, text):
    path = write(home.cwd)
    path.write_bytes(text)
    with pytest.raises(TinymimError, match=r"small\.yaml cannot be read") as caught:
        cards.read(path)
    assert "\n" not in str(caught.value)


def test_find__unknown_gives_the_nearest_names(home):
    for name in ("mae_vitb16", "mae_vitl16", "dino_vits8"):
        write(home.own, {"name": name})
    (home.own / "broken.yaml").write_text("name: [")  # no reason to fail on another
    with pytest.raises(TinymimError, match=r"no card 'mae_vitb'; near it: mae_vitb16, mae_vitl16") as caught:
        cards.find("mae_vitb")
    assert "tinymim teachers" in str(caught.value)
    assert "timm:NAME" in str(caught.value)


def test_find__env_then_cwd_then_project(home):
    for licence, folder in zip(("env", "cwd", "own"), (home.env, home.cwd, home.own), strict=True):
        write(folder, {"licence": licence})
    for licence, folder in zip(("env", "cwd", "own"), (home.env, home.cwd, home.own), strict=True):
        assert cards.find("small").licence == licence
        assert [path.parent.resolve() for path in cards.paths().values()] == [folder]
        (folder / "small.yaml").unlink()
    assert cards.paths() == {}


def test_find__by_path(home, tmp_path):
    assert cards.find(str(write(tmp_path, {"name": "elsewhere"}))).name == "elsewhere"


def test_weights_path__beside_the_card_or_where_the_environment_says(home):
    card = cards.read(write(home.own))
    assert card.weights_path() is None
    publish(home.env)
    assert card.weights_path() == home.env / "small.pth"
    publish(home.own)
    assert card.weights_path() == home.own / "small.pth"


def test_weights_path__in_the_hubs_cache(home, tmp_path):
    card = cards.read(write(home.own, {"hub": "timm/small/model.safetensors", "url": ...}))
    assert card.address == "https://huggingface.co/timm/small/resolve/main/model.safetensors"
    assert card.weights_path() is None
    repository = tmp_path / "hub/models--timm--small"
    for name, text in {"refs/main": "abc", "snapshots/abc/model.safetensors": "weights"}.items():
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    assert card.weights_path() == repository / "snapshots/abc/model.safetensors"


def test_how_to_get__by_hand_where_no_program_can(home):
    card = cards.read(write(home.own, {"url": ..., "page": "https://example.org/drive"}))
    assert card.how_to_get().startswith("download it from https://example.org/drive and put it at ")
    assert "fetch" not in card.how_to_get()


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("MIT", "passes on to students"),
        ("cc-by-nc-4.0", "not for commercial use"),
        ("CC-BY-NC", "not for commercial use"),
        ("Apache-2.0 and CC-BY-NC-4.0", "not for commercial use"),
        ("unknown", "ask whoever made it"),
        ("none stated; no permission is given", "ask whoever made it"),
    ],
)
def test_terms__say_what_a_licence_means(licence, words):
    assert words in cards.terms(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "CC-BY-N\u034fC-4.0",
        "CC-BY-N\ufe0fC-4.0",
        "CC-BY-N\u3164C-4.0",
        "CC-BY-N\u00adC",
        "CC_BY_NC_4.0",
        "CC BY N_C 4.0",
        "CCBYNC4.0",
        "cc\u2013by\u2212nc",
        "\uff23\uff23\uff0d\uff22\uff39\uff0d\uff2e\uff23",
        "non\u2011commercial",
        "Creative Commons Attribution Non Commercial 4.0",
        "Attribution-NonCommercial",
        "NON\nCOMMERCIAL",
        "MIT, for research\u00a0only",
        "not for commercial use",
    ],
)
def test_restriction__is_found_however_it_is_written(licence):
    assert cards.restriction(licence) == cards.restriction("CC-BY-NC-4.0") is not None


@pytest.mark.parametrize(
    "licence", ["UNKNOWN", " none", "None stated", "MIT and Unknown", "MIT,\u3164none", "un\u034fknown", "", " \u3164"]
)
def test_restriction__where_nothing_was_stated(licence):
    assert cards.restriction(licence) == cards.restriction("unknown") is not None


@pytest.mark.parametrize(
    "licence", ["CC-BY-N\u0421-4.0", "CC-BY-\u0274\u1d04", "u\u0578known", "CC-BY-\U0001f17d\U0001f172"]
)
def test_restriction__letters_that_look_like_others_are_no_licence_of_ours(licence):
    assert "read it before you use it" in cards.terms(licence)


@pytest.mark.parametrize(
    "spelt", [str, str.lower, str.upper, lambda name: f" {name}\n", lambda name: f"{name} and MIT"]
)
@pytest.mark.parametrize(
    "licence",
    [
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "MIT",
        "Apache-2.0",
        "Apache License, Version 2.0",
        "BSD-3-Clause",
        "GPL-3.0-or-later",
        "University of Illinois/NCSA Open Source License",
        "CC\u2212BY\u22124.0",
        "The Unlicense",
        "CeCILL \u2013 licence fran\u00e7aise",
        "MIT \u00a9 2024; commercial use is permitted",
    ],
)
def test_restriction__of_honest_licences_is_none(licence, spelt):
    assert cards.restriction(spelt(licence)) is None


@given(st.lists(st.sampled_from("\u034f\ufe0f\u3164\u200b\u00ad\u2060\u180b\U000e0100\uffa0\u115f"), max_size=14))
def test_restriction__is_the_same_whatever_shows_nothing(between):
    for name in ("CC-BY-NC-4.0", "unknown", "MIT"):
        said = "".join(letter + blank for letter, blank in zip_longest(name, between[: len(name)], fillvalue=""))
        assert cards.restriction(said) == cards.restriction(name)


def test_record_sha256__changes_that_line_alone(home):
    path = write(home.env)
    before = path.read_text()
    assert cards.read(path).record_sha256("ab" * 32) == path
    assert path.read_text() == re.sub("sha256: null", f"sha256: {'ab' * 32}", before)
    card = cards.read(write(home.own, {"name": "other", "sha256": ...}))
    with pytest.raises(TinymimError, match=r"other\.yaml has no sha256 line"):
        card.record_sha256("ab" * 32)


def test_folder__of_a_card_of_the_package_is_the_users(home, monkeypatch):
    """Nothing is asked to be put into an installation, nor written there."""
    path = write(home.own)
    before, card = path.read_text(), cards.read(path)
    assert f"put it at {home.env / 'small.pth'} " in card.how_to_get()
    assert card.record_sha256("ab" * 32) == home.env / "small.yaml"
    assert path.read_text() == before
    assert cards.find("small").sha256 == "ab" * 32
    monkeypatch.delenv("TINYMIM_TEACHERS")
    assert card.place == cards.Path("teachers/small.pth")
