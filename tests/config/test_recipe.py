import copy
from textwrap import dedent

import pytest

from tinymim.config import class_paths, options, trainer_parts, validation
from tinymim.config import recipe as recipes
from tinymim.errors import TinymimError


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    return write


def resolved(path, *overrides):
    return recipes.resolve(["--config", str(path), *overrides])[0]


def test_extends__later_fragments_and_the_recipe_itself_win(write):
    write("first", "trainer: {max_epochs: 1, precision: 32, log_every_n_steps: 1}")
    write("parts/second", "trainer: {max_epochs: 2, precision: 16}")
    recipe = write("recipe", "extends: [first, parts/second]\ntrainer: {max_epochs: 3}")
    assert resolved(recipe) == {
        "name": "recipe",
        "trainer": {"max_epochs": 3, "precision": 16, "log_every_n_steps": 1},
    }
    turned = write("turned", "extends: [parts/second, first]")
    assert resolved(turned)["trainer"]["precision"] == 32


def test_extends__a_fragments_own_fragments_come_below_it(write):
    write("parts/ground", "trainer: {max_epochs: 1, precision: 32}")
    write("parts/middle", "extends: [ground]\ntrainer: {max_epochs: 2}")
    recipe = write("recipe", "extends: [parts/middle]\nseed_everything: 4")
    assert resolved(recipe) == {
        "name": "recipe",
        "seed_everything": 4,
        "trainer": {"max_epochs": 2, "precision": 32},
    }


def test_extends__lists_are_replaced(write):
    write("ground", "model: {class_path: a.B, init_args: {targets: [1, 2, 3]}}")
    recipe = write("recipe", "extends: [ground]\nmodel: {init_args: {targets: [4]}}")
    assert resolved(recipe)["model"] == {"class_path": "a.B", "init_args": {"targets": [4]}}


def test_extends__the_same_fragment_twice_is_no_ring(write):
    write("ground", "seed_everything: 1")
    write("left", "extends: [ground]")
    write("right", "extends: [ground]")
    assert resolved(write("recipe", "extends: [left, right]"))["seed_everything"] == 1


@pytest.mark.parametrize(
    "ring",
    [
        {"a": "a"},
        {"a": "b", "b": "c", "c": "a"},
        {"a": "parts/b", "parts/b": "../a"},
    ],
    ids=["itself", "by way of others", "across folders"],
)
def test_extends__a_ring_is_an_error(write, ring):
    paths = [write(name, f"extends: [{fragment}]") for name, fragment in ring.items()]
    with pytest.raises(TinymimError, match=r"a\.yaml extends itself"):
        recipes.compose(paths[0])


def test_extends__missing_fragment_names_both_files(write):
    recipe = write("recipe", "extends: [nowhere]")
    with pytest.raises(TinymimError, match=r"recipe\.yaml extends nowhere.*no .*nowhere\.yaml"):
        recipes.compose(recipe)


@pytest.mark.parametrize("text", ["trainer: {", "- 1\n- 2", "a: b: c"])
def test_compose__what_is_no_recipe(write, text):
    with pytest.raises(TinymimError, match=r"broken\.yaml"):
        recipes.compose(write("broken", text))


def test_class_path__another_class_drops_the_old_ones_options(write):
    write("ground", "data: {class_path: a.Old, init_args: {x: 1}, dict_kwargs: {y: 1}}\nseed_everything: 1")
    recipe = write("recipe", "extends: [ground]\ndata: {class_path: a.New, init_args: {z: 2}}")
    assert resolved(recipe)["data"] == {"class_path": "a.New", "init_args": {"z": 2}}


def test_class_path__the_same_class_keeps_them(write):
    write("ground", "data: {class_path: a.Same, init_args: {x: 1, y: 1}}")
    recipe = write("recipe", "extends: [ground]\ndata: {class_path: a.Same, init_args: {y: 2}}")
    assert resolved(recipe)["data"]["init_args"] == {"x": 1, "y": 2}


def test_class_path__the_class_of_an_old_recipe_is_the_shipped_ones(write):
    old = "model: {class_path: tinymim.modules.Distiller, init_args: {drop_path: 0.3}}"
    model = resolved(write("recipe", f"extends: [relation_digits]\n{old}"))["model"]
    assert model["init_args"]["drop_path"] == 0.3
    assert model["init_args"]["teacher"] == "digits_mae", "the shipped recipe's options stay"
    same = resolved("relation_digits", "--model.class_path", "tinymim.modules.Distiller")["model"]
    assert same["init_args"]["teacher"] == "digits_mae"


def test_class_path__switches_inside_options_as_well(write):
    inner = "model: {{class_path: a.Model, init_args: {{w: 1, part: {{class_path: a.{}, init_args: {{{}}}}}}}}}"
    write("ground", inner.format("Old", "x: 1"))
    recipe = write("recipe", "extends: [ground]\n" + inner.format("New", "z: 2"))
    part = resolved(recipe)["model"]["init_args"]["part"]
    assert part == {"class_path": "a.New", "init_args": {"z": 2}}


def test_class_path__switches_from_recipe_to_recipe_on_one_command_line(write):
    old = write("old", "data: {class_path: a.Old, init_args: {x: 1}}")
    new = write("new", "data: {class_path: a.New}")
    config, rest = recipes.resolve(["--config", str(old), f"--config={new}"])
    assert config == {"name": "old", "data": {"class_path": "a.New"}}
    assert rest == []


def test_class_path__switches_on_the_command_line(write):
    recipe = write("recipe", "data: {class_path: a.Old, init_args: {x: 1}}")
    overrides = ["--data.class_path", "a.New", "--data.init_args.z", "2"]
    assert resolved(recipe, *overrides)["data"] == {"class_path": "a.New", "init_args": {"z": 2}}


POINTING = """
    seed_everything: 7
    vars:
      student: {arch: small, options: {depth: 3}}
      lr: 1e-3
    data: {class_path: a.D, init_args: {seed: "${seed_everything}"}}
    model:
      class_path: a.M
      init_args:
        student: ${vars.student}
        other: ${vars.student}
        optim: {base_lr: "${vars.lr}"}
"""


def test_interpolation__is_resolved_and_vars_are_gone(write):
    config = resolved(write("recipe", POINTING))
    student = {"arch": "small", "options": {"depth": 3}}
    assert config == {
        "name": "recipe",
        "seed_everything": 7,
        "data": {"class_path": "a.D", "init_args": {"seed": 7}},
        "model": {"class_path": "a.M", "init_args": {"student": student, "other": student, "optim": {"base_lr": 1e-3}}},
    }


@pytest.mark.parametrize("form", ["--seed_everything 9", "--seed_everything=9"])
def test_override__reaches_what_points_at_it(write, form):
    config = resolved(write("recipe", POINTING), *form.split())
    assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 9


def test_override__of_vars_reaches_all_who_point_there(write):
    init_args = resolved(write("recipe", POINTING), "--vars.student.options.depth", "6")["model"]["init_args"]
    assert init_args["student"] == init_args["other"] == {"arch": "small", "options": {"depth": 6}}


def test_override__of_vars_is_spent_for_the_parser_knows_none(write):
    _, rest = recipes.resolve(["--config", str(write("recipe", POINTING)), "--vars.lr", "1", "--seed_everything=1"])
    assert rest == []


@pytest.mark.parametrize("key", ["model.init_args.student.options.depth", "model.student.options.depth"])
def test_override__through_a_pointer_stays_where_it_is(write, key):
    init_args = resolved(write("recipe", POINTING), f"--{key}", "6")["model"]["init_args"]
    assert init_args["student"] == {"arch": "small", "options": {"depth": 6}}
    assert init_args["other"] == {"arch": "small", "options": {"depth": 3}}


def test_override__of_a_pointer_itself_leaves_its_aim(write):
    recipe = write("recipe", POINTING + "    compare: ${vars.lr}\n")
    config = resolved(recipe, "--model.optim.base_lr", "5")
    assert config["model"]["init_args"]["optim"] == {"base_lr": 5}
    assert config["compare"] == 1e-3


def test_override__of_a_pointer_that_leads_nowhere_mends_it(write):
    recipe = write("recipe", "data: {class_path: a.D, init_args: {root: '${oc.env:NO_SUCH_VARIABLE}'}}")
    assert resolved(recipe, "--data.root", "here")["data"]["init_args"] == {"root": "here"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("2e-3", 0.002),
        ("true", True),
        ("null", None),
        ("-1", -1),
        ("word", "word"),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
    ],
)
@pytest.mark.parametrize("form", ["two words", "one word"])
def test_override__means_what_the_same_text_means_in_a_recipe(write, text, value, form):
    assert resolved(write("written", f"compare: {text}"))["compare"] == value
    override = ["--compare", text] if form == "two words" else [f"--compare={text}"]
    found = resolved(write("recipe", "compare: old"), *override)["compare"]
    assert found == value
    assert type(found) is type(value)


def test_override__makes_what_is_not_there(write):
    recipe = write("recipe", "model: {class_path: a.M}")
    assert resolved(recipe, "--model.optim.base_lr", "1", "--trainer.max_epochs", "2") == {
        "name": "recipe",
        "model": {"class_path": "a.M", "init_args": {"optim": {"base_lr": 1}}},
        "trainer": {"max_epochs": 2},
    }


def test_override__flags_are_left_to_the_parser(write):
    arguments = ["--print_config", "--overwrite", "--seed_everything", "3"]
    config, rest = recipes.resolve(["--config", str(write("recipe", "seed_everything: 1")), *arguments])
    assert config == {"name": "recipe", "seed_everything": 3, "overwrite": True}
    assert rest == ["--print_config"]


@pytest.mark.parametrize("before", ["null", "{class_path: a.A}", "[{class_path: a.A}]"])
def test_override__grows_a_list_whose_last_part_later_options_are_of(before, write):
    recipe = write("recipe", f"trainer: {{callbacks: {before}}}\nmodel: {{class_path: a.M}}")
    grown = ["--trainer.callbacks+=a.B", "--trainer.callbacks.x=1", "--trainer.callbacks+", "[a.C, {class_path: a.D}]"]
    config = resolved(recipe, *grown, "--trainer.callbacks.y", "2", "--model.targets+=b.T", "--model.targets.weight=3")
    first = [] if before == "null" else [{"class_path": "a.A"}]
    assert config["trainer"]["callbacks"] == [
        *first,
        {"class_path": "a.B", "init_args": {"x": 1}},
        "a.C",
        {"class_path": "a.D", "init_args": {"y": 2}},
    ]
    assert config["model"]["init_args"]["targets"] == [{"class_path": "b.T", "init_args": {"weight": 3}}]


def test_override__a_class_by_its_bare_name(write):
    config, _ = recipes.resolve(
        ["--config", str(write("recipe", "seed_everything: 1")), "--data", "a.B", "--data.size=3"]
    )
    assert config["data"] == {"class_path": "a.B", "init_args": {"size": 3}}


@pytest.mark.parametrize("text", ["data: {class_path: HFData}", "data: {class_path: tinymim.data.DigitsData}"])
def test_class_path__of_the_project_by_its_name_alone(write, text):
    arguments = [] if "HFData" in text else ["--data", "HFData"]
    config, _ = recipes.resolve(["--config", str(write("recipe", text)), *arguments, "--model=Knn"])
    assert config["data"]["class_path"] == "tinymim.data.HFData"
    assert config["model"]["class_path"] == "tinymim.modules.Knn"


def test_override__that_is_not_yaml_is_the_users_mistake(write):
    with pytest.raises(TinymimError, match="compare"):
        resolved(write("recipe", "compare: 1"), "--compare", "@home: [")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("00:11:30:00", "00:11:30:00"),
        ("10:00:00:05", "10:00:00:05"),  # a number to the base of 60, to YAML
        ("{hours: 36, seconds: 0.5}", "01:12:00:01"),
        ("{minutes: -1}", {"minutes": -1}),
        ("null", None),
    ],
)
def test_resolve__a_limit_of_time_is_text_that_a_saved_recipe_keeps(write, given, kept):
    assert resolved(write("recipe", "seed_everything: 1"), "--trainer.max_time", given)["trainer"] == {"max_time": kept}


@pytest.mark.parametrize("override", [["--ckpt_path", ""], ["--ckpt_path="], ["--model.weights", " "], ["--list+="]])
def test_override__by_an_empty_variable_is_not_null(write, override):
    with pytest.raises(TinymimError, match=r"--[a-z_.+]+: nothing is given, as by a variable that is empty"):
        resolved(write("recipe", "list: [1]"), *override)
    assert resolved(write("recipe", "list: [1]"), "--ckpt_path", '""')["ckpt_path"] == ""


def test_resolve__a_pointer_to_nowhere(write):
    with pytest.raises(TinymimError, match=r"recipe: .*nothing"):
        resolved(write("recipe", "seed_everything: ${vars.nothing}"))


def test_resolve__config_without_a_name():
    with pytest.raises(TinymimError, match="--config needs"):
        recipes.resolve(["--trainer.max_epochs", "3", "--config"])


def test_resolve__a_recipes_own_name_wins(write):
    assert resolved(write("recipe", "name: mine"))["name"] == "mine"


def test_find__unknown_recipe_gives_near_names(write, tmp_path, monkeypatch):
    for name in ("relation_digits", "relation_vitt", "probe_digits", "parts/relation_digit"):
        write(f"recipes/{name}", "seed_everything: 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "shipped", lambda kind: tmp_path / "nowhere")
    assert recipes.names() == ["probe_digits", "relation_digits", "relation_vitt"]
    assert resolved("relation_digits") == {"name": "relation_digits", "seed_everything": 1}
    with pytest.raises(TinymimError, match=r"unknown recipe 'relation_digit'; near it: relation_digits"):
        recipes.find("relation_digit")


SOUND = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 3, "precision": "bf16-mixed"},
    "data": {"class_path": "tinymim.data.DigitsData", "init_args": {"batch_size": 32}},
    "model": {
        "class_path": "tinymim.modules.Distiller",
        "init_args": {
            "teacher": "digits_mae",
            "student": {"arch": "vit_tiny_patch16_224", "heads": 3},
            "targets": [{"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["qk", "vv"]}}],
            "optim": {"base_lr": 1e-3, "betas": [0.9, 0.95]},
        },
    },
}


def wrong(changes):
    """The sound recipe with the value at each dotted key changed; ``...`` takes it away."""
    config = copy.deepcopy(SOUND)
    for key, value in changes.items():
        *way, last = key.split(".")
        node = config
        for part in way:
            node = node[int(part) if part.isdigit() else part]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return config


INIT = "model.init_args"
MISTAKES = {
    "trainer key": ({"trainer.max_epoch": 3}, "trainer.max_epoch:", "did you mean max_epochs?"),
    "trainer value": ({"trainer.max_epochs": "three"}, "trainer.max_epochs:", "'three' is not a whole number"),
    "trainer choice": ({"trainer.precision": "bf17"}, "trainer.precision:", "bf16-mixed"),
    "init_arg": ({f"{INIT}.taecher": "x"}, f"{INIT}.taecher:", "did you mean teacher?"),
    "type": ({"data.init_args.batch_size": "many"}, "data.init_args.batch_size:", "'many' is not a whole number"),
    "dataclass key": ({f"{INIT}.optim.base_rl": 1}, f"{INIT}.optim.base_rl:", "did you mean base_lr?"),
    "dataclass value": ({f"{INIT}.student.heads": "some"}, f"{INIT}.student.heads:", "'some' is not a whole number"),
    "target's class": (
        {f"{INIT}.targets.0.class_path": "tinymim.targets.Relatoin"},
        f"{INIT}.targets[0].class_path:",
        "did you mean tinymim.targets.Relation?",
    ),
    "target's option": (
        {f"{INIT}.targets.0.init_args.paris": ["qk"]},
        f"{INIT}.targets[0].init_args.paris:",
        "did you mean pairs?",
    ),
    "target's value": (
        {f"{INIT}.targets.0.init_args.softmax": "perhaps"},
        f"{INIT}.targets[0].init_args.softmax:",
        "is not true or false",
    ),
    "option above": (
        {"data": {"class_path": "tinymim.data.ImageFolderData", "init_args": {"root": "a", "flipp": True}}},
        "data.init_args.flipp:",
        "did you mean flip?",
    ),
    "value above": (
        {"data": {"class_path": "tinymim.data.ShardsData", "init_args": {"train": "a", "window": 2, "bank_size": "x"}}},
        "data.init_args.bank_size:",
        "'x' is not a whole number",
    ),
    "module": ({"data.class_path": "tinymim.dta.DigitsData"}, "data.class_path:", "cannot be imported"),
    "class": ({"data.class_path": "tinymim.data.DigitData"}, "data.class_path:", "tinymim.data.DigitsData?"),
    "bare class": ({"data.class_path": "DigitsData"}, "data.class_path:", "cannot be imported"),
    "key beside class_path": ({"model.int_args": {}}, "model.int_args:", "did you mean init_args?"),
    "recipe's key": ({"trianer": {}}, "trianer:", "did you mean trainer?"),
    "no class": ({"data.class_path": ...}, "data:", "class_path"),
    "text for a class": ({"data": "digits"}, "data:", "class_path"),
    "missing part": ({"model": ...}, "model:", "model.class_path"),
    "list for options": ({"data.init_args": [1]}, "data.init_args:", "[1]"),
    "text for the trainer": ({"trainer": "fast"}, "trainer:", "fast"),
}


def test_mistakes__none_in_a_sound_recipe():
    assert validation.mistakes(copy.deepcopy(SOUND)) == ([], SOUND)


@pytest.mark.parametrize(("changes", "where", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes__each_names_its_place_and_a_remedy(changes, where, words):
    config = wrong(changes)
    before = copy.deepcopy(config)
    (found,), _ = validation.mistakes(config)
    assert found.startswith(where)
    assert words in found
    assert config == before


def test_mistakes__all_at_once():
    together = ["trainer key", "init_arg", "type", "dataclass key", "target's class", "recipe's key"]
    found, pruned = validation.mistakes(wrong({k: v for name in together for k, v in MISTAKES[name][0].items()}))
    assert len(found) == len(together)
    for name in together:
        _, where, words = MISTAKES[name]
        assert any(line.startswith(where) and words in line for line in found), name
    assert pruned["trainer"] == SOUND["trainer"]
    assert pruned["data"]["init_args"] == {}
    assert pruned["model"]["init_args"]["optim"] == SOUND["model"]["init_args"]["optim"]


@pytest.mark.parametrize("path", sorted((recipes.shipped("recipes")).glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes__the_projects_own_have_no_mistakes_in_their_text(path):
    config = resolved(path)
    assert validation.mistakes(config)[0] == []
    assert not set(config) - options.KEYS


@pytest.mark.parametrize("named", [["--data", "{}"], ["--data.class_path", "{}"], ["--config", "{}.yaml"]])
def test_data__another_class_keeps_the_options_that_it_takes(write, named):
    options = "{batch_size: 7, seed: '${seed_everything}'}"
    write("ground", f"data: {{class_path: tinymim.data.DigitsData, init_args: {options}}}")
    recipe = write("recipe", "extends: [ground]\nseed_everything: 3\ndata: {init_args: {degrees: 5}}")
    shards = "tinymim.data.ShardsData"
    path = write(shards, f"data: {{class_path: {shards}}}")
    given = [one.format(str(path).removesuffix(".yaml") if "yaml" in one else shards) for one in named]
    data = resolved(recipe, *given, "--data.train", "x.tar")["data"]
    assert data == {"class_path": shards, "init_args": {"batch_size": 7, "seed": 3, "train": "x.tar"}}


def test_options_of__a_class_that_passes_none_on_are_its_own() -> None:
    robustness = class_paths.options_of("tinymim.data.RobustnessData")
    assert "imagenet_a" in robustness
    assert "seed" not in robustness, "finetune_vitb's would be refused under parts/robustness"
    assert {"root", "seed", "batch_size"} <= class_paths.options_of("tinymim.data.ImageFolderData")


DEVICES = {
    "right": [None, "auto", 1, 8, -1, "2", [0, 1], "0,1", "[1]", "-1"],
    "wrong": ["abc", 0, -7, [], [0, 0], [-1], ["a"], 1.5, True, {}, "0,x", ""],
    "right on a cpu": ["auto", 1, "2", 2],
    "wrong on a cpu": [-1, [0, 1], "0,1", 0, 10**6],
}


@pytest.mark.parametrize("case", DEVICES)
def test_devices__of_any_form(case: str) -> None:
    for devices in DEVICES[case]:
        options = {"devices": devices, "accelerator": "cpu" if "cpu" in case else "auto"}
        errors = trainer_parts.option_errors(options, fits=True)
        assert len(errors) == ("wrong" in case), devices
        assert all(error.startswith("trainer.devices: ") for error in errors)
