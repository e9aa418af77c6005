"""What a person writes, on a command line and in YAML, is what a verb is called with; or one line says what is wrong.

The cases are made from the annotations: a new option, list or group is tested by being there.
"""

import inspect
import itertools
import re
import typing
from types import SimpleNamespace

import pytest
import yaml

from raycsr.cli import command, main
from raycsr.costs import CostSpec
from raycsr.errors import UserError
from raycsr.options import hints_of, read_words
from raycsr.options.annotations import alternatives_of, element_of, forms_of, group_of, scalars_of
from raycsr.verbs import VALIDATED, VERBS, function_of

COMMANDS = [[verb] for verb in VERBS if verb != "validate"] + [["validate", verb] for verb in VALIDATED]
each_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)

# type -> two different values, as YAML holds them
TWO = {int: (2, 3), float: (0.25, 0.5), str: ("a", "b"), bool: (True, False)}


def two_values(hint):
    """Two values that an option may have."""
    (kind,) = scalars_of(hint)[:1] or [None]
    if kind is None and element_of(hint) is not None:
        return tuple([value] for value in two_values(element_of(hint)))
    if typing.get_origin(kind) is typing.Literal:
        return typing.get_args(kind)[:2]
    return TWO.get(kind, ({"x": {"grid": [1]}}, {"y": {"grid": [2]}}))


def all_options(words):
    """Each option of a command, dotted -> its annotation."""
    return dict(leaves(hints_for(words)))


def hints_for(words):
    hints = hints_of(function_of(words[-1]))
    timing = inspect.signature(function_of("validate")).parameters["planning"].annotation
    return hints | hints_of(timing) if words[0] == "validate" else hints


def leaves(hints, prefix=""):
    for name, hint in hints.items():
        if group_of(hint) is None:
            yield prefix + name, hint
        else:
            yield from leaves(hints_of(group_of(hint)), f"{prefix}{name}.")


def nested(flat):
    """Dotted options as a file has them."""
    result = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        place = result
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return result


def typed(name, value):
    """An option as it is typed in a shell."""
    return [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]


def called(words):
    """What a command line would call its verb with, nested."""
    call = command(words[0], words[1:])
    options = vars(call.args[1]) | vars(call.args[2]) if call.args else call.keywords
    return SimpleNamespace(**options)


def given_by(way, words):
    """What a command line says, without defaults."""

    def spaced(options):
        return SimpleNamespace(**{name: spaced(one) if is_group(one) else one for name, one in options.items()})

    def is_group(value):
        return isinstance(value, dict) and not {"x", "y"} & set(value)

    return spaced(read_words(way, hints_for(words)))


def value_of(options, name):
    for key in name.split("."):
        options = getattr(options, key)
    return list(options) if isinstance(options, tuple) else options


@pytest.fixture
def config(tmp_path):
    def write(options, name="job.yaml"):
        path = tmp_path / name
        path.write_text(options if isinstance(options, str) else yaml.safe_dump(options))
        return str(path)

    return write


# Precedence -----------------------------------------------------------------------------------------------


@each_command
@pytest.mark.parametrize("place", ["before", "after", "between", "equals"])
def test_the_command_line_goes_before_a_config_wherever_that_stands(words, place, config):
    options = {name: two_values(hint) for name, hint in all_options(words).items()}
    path = config(nested({name: in_file for name, (in_file, _) in options.items()}))
    over = [typed(name, value) for name, (_, value) in options.items()]
    half = len(over) // 2
    command_line = {
        "before": [["--config", path], *over],
        "after": [*over, ["--config", path]],
        "between": [*over[:half], ["--config", path], *over[half:]],
        "equals": [*over, [f"--config={path}"]],
    }[place]
    result = called([*words, *itertools.chain(*command_line)])
    assert {name: value_of(result, name) for name in options} == {name: value for name, (_, value) in options.items()}


@each_command
def test_each_option_alone_changes_itself_alone(words, config):
    options = {name: two_values(hint) for name, hint in all_options(words).items()}
    path = config(nested({name: in_file for name, (in_file, _) in options.items()}))
    for name, (_, value) in options.items():
        result = given_by([*typed(name, value), "--config", path], words)
        expected = {other: in_file for other, (in_file, _) in options.items()} | {name: value}
        assert {other: value_of(result, other) for other in options} == expected


def test_a_later_config_goes_before_an_earlier_one_option_by_option(config):
    one = config({"data": {"source": "digits", "limit": 3}, "model": {"name": "m"}, "costs": ["uniform", "seed:1"]})
    two = config({"data": {"limit": 5}, "costs": ["seed:2"], "results": "r"}, "two.yaml")
    result = called(["sample", "--config", one, "--config", two])
    assert (result.data.source, result.data.limit, result.costs) == ("digits", 5, ["seed:2"])


def test_a_whole_group_comes_before_its_single_options(config):
    group = config({"n": 3, "n0": 5}, "sampling.yaml")
    base = ["sample", "--data.source", "digits", "--model.name", "m", "--results", "r", "--sampling.n", "7"]
    for written in (group, "{n: 3, n0: 5}"):
        sampling = called([*base, "--sampling", written]).sampling
        assert (sampling.n, sampling.n0) == (7, 5)


def test_one_key_of_a_mapping_leaves_the_others(config):
    path = config({"objective": {"name": "macer", "args": {"k": 4, "lam": 1.0}}})
    required = ["--data.source", "digits", "--model.name", "m", "--sigma", ".5", "--results", "r"]
    result = called(["train", "--objective.args.k", "8", "--config", path, *required])
    assert result.objective.args == {"k": 8, "lam": 1.0}


@pytest.mark.parametrize("whole", ["{name: a, args: {b: 1}}", "{name: a}"])
def test_a_group_that_may_be_a_list_is_one_where_it_is_written_as_one(whole):
    model = read_words(["--model.denoiser", whole, "--model.denoiser.args.c", "2"], hints_for(["sample"]))["model"]
    assert model["denoiser"] == {"name": "a", "args": {**({"b": 1} if "b" in whole else {}), "c": 2}}
    two = read_words(["--model.denoiser", whole, "--model.denoiser", "{name: z}"], hints_for(["sample"]))["model"][
        "denoiser"
    ]
    assert [one["name"] for one in two] == ["a", "z"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--model.denoiser", "[{name: a}, {name: b}]", "--model.denoiser.sigma", "1"],
            "--model.denoiser.sigma sets a part of model.denoiser, which is a list of 2",
        ),
        (
            ["--model.denoiser.args.c", "1", "--model.denoiser", "{name: a}", "{name: b}"],
            "--model.denoiser.args.c sets a part of model.denoiser, which is a list of 2",
        ),
        (
            ["--model.args.c", "3", "--model.args.c.d", "1"],
            "--model.args.c.d sets a part of model.args.c, which is '3'",
        ),
    ],
)
def test_a_part_of_what_is_no_group_is_refused_by_name(words, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_words(words, hints_for(["sample"]))


def test_beside_a_part_a_name_alone_is_given_as_the_name(config):
    with pytest.raises(UserError, match=r"--model.ema .* of model, which is 'a.pt'; give that as --model.name"):
        read_words(["--model", "a.pt", "--model.ema", "true"], hints_for(["quantise"]))


def test_a_part_of_what_a_file_has_as_a_list_is_refused_too(config):
    path = config({"model": {"denoiser": [{"name": "a"}]}})
    with pytest.raises(UserError, match=r"--model.denoiser.sigma sets a part of model.denoiser, which is a list of 1"):
        read_words(["--config", path, "--model.denoiser.sigma", "1"], hints_for(["sample"]))


def test_a_list_in_a_mapping_is_given_by_its_dotted_name():
    space = read_words(["--space.training.grid", "[0.5, 1]"], hints_for(["sweep"]))["space"]
    assert space == {"training": {"grid": [0.5, 1]}}


def test_help_says_the_order(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help-all"])
    said = " ".join(capsys.readouterr().out.split())
    assert "command line goes before --config" in said


# Lists ----------------------------------------------------------------------------------------------------

LISTS = [
    (words, name, hint)
    for words in COMMANDS
    for name, hint in all_options(words).items()
    if element_of(hint) not in (None, typing.Any)
]


@pytest.mark.parametrize(("words", "name", "hint"), LISTS, ids=[f"{' '.join(w)} --{n}" for w, n, _ in LISTS])
def test_a_list_is_written_one_way_for_every_option(words, name, hint, config):
    element = element_of(hint)
    values = list(two_values(element))
    one, two = map(str, values)
    ways = [[f"--{name}", one, two], [f"--{name}", one, f"--{name}", two], [f"--{name}={one}", f"--{name}={two}"]]
    ways += [[f"--{name}", f"[{one}, {two}]"], ["--config", config(nested({name: values}))]]
    if forms_of(element) is None:
        ways += [[f"--{name}", f"{one},{two}"], [f"--{name}", f"{one}, {two}"]]
        ways += [["--config", config(nested({name: f"{one}, {two}"}), "text.yaml")]]
    for way in ways:
        assert value_of(given_by(way, words), name) == values, way
    if not scalars_of(hint):  # one value is a list of one, where it is nothing else
        for way in ([f"--{name}", one], ["--config", config(nested({name: values[0]}))]):
            assert value_of(given_by(way, words), name) == values[:1], way


def test_there_are_lists_of_all_kinds():
    found = {name for _, name, _ in LISTS}
    assert {"run", "costs", "rules", "radii", "strengths", "further_models", "sampling.sigma"} <= found
    assert {"sampling.radii", "data.classes", "data.class_names", "training.milestones"} <= found


def read(*words, verb="sample"):
    return read_words(words, hints_of(function_of(verb)))


def test_one_value_of_an_option_that_may_be_a_list_stays_one():
    assert read("--sampling.sigma", ".25") == {"sampling": {"sigma": 0.25}}
    assert read("--data.class_names", "names.txt") == {"data": {"class_names": "names.txt"}}


def test_commas_of_costs_and_rules_are_their_own():
    assert read("--costs", "seed:1,2", "pair:3/4,5/6")["costs"] == ["seed:1,2", "pair:3/4,5/6"]
    assert read("--rules", "offset:0.5,1*costs.csv")["rules"] == ["offset:0.5,1*costs.csv"]


@pytest.mark.parametrize("word", ["seed:8,uniform", "uniform,seed:8", "seed:1,pair:1/2", "a.csv,b.csv", "seed:1,a.csv"])
def test_costs_that_are_written_between_commas_are_told_how(word):
    with pytest.raises(UserError, match="--costs A --costs B"):
        read("--costs", word)


def test_quotes_keep_a_comma():
    classes = read("--data.classes", '"tench, Tinca tinca",3')["data"]["classes"]
    assert classes == ["tench, Tinca tinca", 3]
    with pytest.raises(UserError, match="quotes do not match"):
        read("--data.classes", '"tench, Tinca')


def test_costs_of_a_verb_that_takes_one_matrix_are_not_repeated():
    with pytest.raises(UserError, match="costs is given 2 values, 'seed:1', 'seed:2'; it takes one"):
        read("--costs", "seed:1", "--costs", "seed:2", verb="train")
    assert read("--costs", "seed:1,2", verb="train") == {"costs": "seed:1,2"}


def test_of_another_option_that_is_repeated_the_last_counts():
    assert read("--sampling.n", "1", "--sampling.n=2") == {"sampling": {"n": 2}}


def test_a_positional_is_not_taken_for_a_list():
    assert called(["ls", "RESULTS"]).results == "RESULTS"
    with pytest.raises(UserError, match="'other' is no option"):
        called(["ls", "RESULTS", "other"])
    with pytest.raises(UserError, match="results is given 2 values"):
        called(["ls", "RESULTS", "--results", "other"])


def test_a_run_without_its_option_is_told_it():
    with pytest.raises(UserError, match="'RESULTS/runs/3f' is no option; every option begins with --, such as --run"):
        called(["stop", "RESULTS/runs/3f"])


# Mistakes -------------------------------------------------------------------------------------------------

FULL = {"data": {"source": "digits"}, "model": {"name": "cifar_resnet8"}, "results": "r"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 2}, "pool is 2; give a group of options: actors, "),
        ({"pool": None}, "pool is null; give a group"),
        ({"pool": [1]}, r"pool is \[1\]; give a group"),
        ({"alpha": None}, "alpha is null; give a number"),
        ({"alpha": "small"}, "alpha is 'small'; give a number"),
        ({"alpha": {"a": 1}}, 'alpha is {"a": 1}; give a number'),
        ({"sampling": {"n": 10.0}}, "sampling.n is 10.0; give a whole number"),
        ({"sampling": {"n": True}}, "sampling.n is true; give a whole number"),
        ({"sampling": {"n": None}}, "sampling.n is null; give a whole number"),
        ({"sampling": {"n": [1]}}, r"sampling.n is \[1\]; give a whole number"),
        ({"sampling": {"sigma": float("inf")}}, "sampling.sigma is inf; give a finite number"),
        ({"sampling": {"sigma": 10**400}}, r"sampling.sigma is 1000\d+\.\.\. \(401 characters\); give a number"),
        ({"sampling": {"radii": ["a"]}}, r"sampling.radii\[0\] is 'a'; give a number"),
        ({"sampling": {"precision": "fp4"}}, "sampling.precision is 'fp4'; give one of auto, fp32"),
        ({"experiment": 5}, "experiment is 5; give text; a word of YAML .* in quotes"),
        ({"experiment": None}, "experiment is null; give text"),
        (
            {"data": {"source": "digits", "class_names": [0, 1]}},
            r"data.class_names\[0\] is 0; give text; a word of YAML",
        ),
        ({"model": {"name": "m", "args": 3}}, "model.args is 3; give a mapping"),
        ({"sampels": 3}, "'sampels' is no option; did you mean sampling or"),
        ({"seed": 3}, r"'seed' is no option; did you mean sampling.seed\?"),
        ({"sampling": {"sigm": 3}}, "'sampling.sigm' is no option; did you mean sampling.sigma"),
        ({"sampling.n": 3}, "'sampling.n' is no option of a file; write it in groups"),
        ({"config": "other.yaml"}, "'config' is no option; choose from data, model"),
    ],
)
def test_a_wrong_value_in_yaml_is_one_line(change, message, config, capsys):
    assert_one_line(["sample", "--config", config(FULL | change)], "config '.*job.yaml': " + message, capsys)


def test_all_mistakes_of_a_config_and_a_command_line_are_said_at_once(config, capsys):
    text = FULL | {
        "modl": 1,
        "alpha": "x",
        "sampling": {"sigm": 1, "n": "many"},
        "data": {"source": "digits", "skip": "x"},
    }
    assert main(["sample", "--config", config(text), "--sampling.m", "3", "--costs", "--pool.actors", "few"]) == 2
    lines = capsys.readouterr().err.splitlines()
    for name in ("--sampling.m", "--costs", "pool.actors", "modl", "alpha", "sampling.sigm", "sampling.n", "data.skip"):
        assert sum(f": {name} " in line.replace("'", "") for line in lines) == 1, name
    assert len(lines) == 8


def test_of_very_many_mistakes_some_are_told(config, capsys):
    assert main(["sample", "--config", config(FULL | {f"x{i}": i for i in range(1000)})]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21 and lines[-1] == "raycsr sample: there may be more mistakes"


def test_a_group_of_a_training_that_is_a_list(config, capsys):
    path = config(FULL | {"sigma": 0.5, "training": [1]})
    assert_one_line(["train", "--config", path], r"training is \[1\]; give a group of options: epochs", capsys)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty, no mapping"),
        ("# nothing\n", "empty, no mapping"),
        ("3", "3, no mapping"),
        ("- a\n- b\n", "no mapping"),
        ("just words", "no mapping"),
        ("a: [1\n", "line 2: expected"),
        ("a: b: c\n", "line 1: mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", "line 2: .*another document"),
        ("alpha: 0.1\nalpha: 0.2\n", "line 2: 'alpha' is given twice"),
        ("sampling: {n: 1, n: 2}\n", "line 1: 'n' is given twice"),
        ("1: 2\n", "line 1: a key is no name"),
        ("? [a]\n: b\n", "line 1: a key is no name"),
        ("alpha: !!python/object/apply:os.system [ls]\n", "line 1: could not determine a constructor"),
        ("alpha: !!binary aGk=\n", "line 1: could not determine a constructor"),
        ("alpha: !!float many\n", "many"),
        ("alpha: !!bool perhaps\n", "perhaps"),
        ("alpha: *unknown\n", "line 1: found undefined alias"),
        ("alpha: &a [*a]\n", "line 1: an alias stands for itself"),
        (BOMB, "more than 100,000 values"),
        ("[" * 5000, "nest(ed too deeply|ing depth)"),
        ("a: " + "{a: " * 5000, "nest(ed too deeply|ing depth)"),
        ("alpha: " + "9" * 5000, "alpha is inf; give a finite number"),
        ("a: \x00\n", "special characters are not allowed"),
        ("# " + "x" * 2**20, "1,048,578 bytes, which is no file of options"),
    ],
    ids=lambda text: re.sub(r"\W+", " ", text[:20]),
)
def test_a_file_that_is_no_config_is_one_line(text, message, config, capsys):
    assert_one_line(["sample", "--config", config(text)], message, capsys)


def test_junk_and_absent_files_are_one_line(tmp_path, capsys):
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    for name, message in (("junk", "no text in UTF-8"), ("absent", "No such file"), (".", "Is a directory")):
        assert_one_line(["sample", "--config", str(tmp_path / name)], message, capsys)
    assert_one_line(["sample", "--config", "a\0b"], "cannot be read", capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampling.n", "1e400"], "sampling.n is '1e400'; give a whole number"),
        (["--sampling.n", "9" * 5000], r"sampling.n is .*\(5,000 characters\); give a whole number"),
        (["--sampling.seed", "9" * 20], "sampling.seed is 9+; give a number of less than 20 digits"),
        (["--sampling.sigma", "nan"], "sampling.sigma is nan; give a finite number"),
        (["--alpha", "null"], "alpha is 'null'; give a number"),
        (["--sampling.n", "1", "2"], "'2' is no option"),
        (["--sampling.n"], "sampling.n needs a value"),
        (["--sampling.n", "1", "--sampling.n"], "sampling.n needs a value"),
        (["--costs"], "costs needs a value"),
        (["--config"], "config needs a value"),
        (["--retry_errors"], "retry_errors needs a value; give true or false"),
        (["--costs+=seed:1"], "costs.* is no option; did you mean --costs"),
        (["--sampling.n.more", "1"], "sampling.n.more' is no option"),
        (["--", "x"], "'--' is no option"),
        (["-n", "3"], "'-n' is no option"),
        (["--model.args", "{a"], "model.args is '{a': line 1"),
        (["--pool", "2"], "pool is '2'; give a group of options"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line(words, message, config, capsys):
    assert_one_line(["sample", "--config", config(FULL), *words], message, capsys)


def test_numbers_are_decimal(config):
    path = config("results: r\ndata: {source: digits}\nmodel: {name: m}\nsampling: {seed: 010, sigma: 1e-1}\n")
    assert called(["sample", "--config", path]).sampling.seed == 10  # YAML 1.1 would read 8
    assert called(["sample", "--config", path]).sampling.sigma == 0.1
    assert called(["sample", "--config", path, "--sampling.seed", "011"]).sampling.seed == 11


def test_a_command_line_empties_what_a_file_gives(config):
    path = config(FULL | {"costs": ["uniform"], "data": {"source": "digits", "limit": 3}})
    result = called(["sample", "--config", path, "--costs", "null", "--data.limit", "null"])
    assert result.costs is None and result.data.limit is None


def assert_one_line(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err) and said.err.startswith(f"raycsr {words[0]}: ")
    assert said.err.count("\n") == 1 and said.out == "" and len(said.err) < 500


def test_alternatives_look_through_annotations():
    assert alternatives_of(CostSpec | None) == [str, type(None)]
