import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

from raycsr.cli import command, main
from raycsr.options import hints_of
from raycsr.options.annotations import group_of
from raycsr.options.help import options_of
from raycsr.verbs import VALIDATED, VERBS, Verb, function_of

COMMANDS = [*VERBS, *(f"validate {verb}" for verb in VALIDATED)]


def run(capsys, *words):
    """Runs the command; returns its status and what it said to people and to stderr."""
    status = main(list(words))
    said = capsys.readouterr()
    return status, said.out, said.err


def test_help_names_the_verbs(capsys):
    status, out, _ = run(capsys)
    assert status == 0
    assert all(f"  {verb} " in out for verb in VERBS)


def test_the_version_and_those_that_results_depend_on(capsys):
    status, out, _ = run(capsys, "--version")
    assert status == 0 and out.startswith(f"raycsr {version('raycsr')} (Python 3.")
    assert f"ray {version('ray')}, torch {version('torch')}" in out
    assert run(capsys, "--verison") == (2, "", "raycsr --verison: no such option; did you mean --version?\n")


def test_python_runs_the_package_as_the_command():
    done = subprocess.run([sys.executable, "-m", "raycsr", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("raycsr ")


def test_an_unknown_verb_is_one_line(capsys):
    assert run(capsys, "smaple") == (2, "", "raycsr smaple: no such verb; did you mean sample or completion?\n")
    assert run(capsys, "zzz") == (2, "", "raycsr zzz: no such verb; choose from " + ", ".join(VERBS) + "\n")


# What a module of verbs/ and a line of VERBS would say.
ONE_MORE = '''
"""Rolling dice."""

from dataclasses import dataclass
from raycsr.options import takes

@dataclass(frozen=True)
class DiceArguments:
    """Dice.

    Attributes:
        sides: Numbers of sides of the dice.
    """

    sides: list[int]

@takes(DiceArguments)
def dice(asked: DiceArguments) -> None:
    """Says how many numbers some dice can come to."""
    print(sum(asked.sides) - len(asked.sides) + 1)
'''


def test_a_verb_more_is_a_module_and_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "rolling.py").write_text(ONE_MORE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VERBS, "dice", Verb("rolling:dice", "dice -> how many numbers they can come to"))
    assert "  dice        dice -> how many numbers they can come to\n" in run(capsys)[1]
    assert run(capsys, "dice", "--sides", "6,6") == (0, "11\n", "")
    (tmp_path / "dice.yaml").write_text("sides: [4, 8]")
    assert run(capsys, "dice", "--config", str(tmp_path / "dice.yaml")) == (0, "11\n", "")
    assert run(capsys, "dicee")[2].startswith("raycsr dicee: no such verb; did you mean dice")
    assert "did you mean --sides" in run(capsys, "dice", "--side", "6")[2]
    with pytest.raises(SystemExit):
        main(["dice", "--help"])
    assert "Numbers of sides of the dice." in capsys.readouterr().out


def test_a_command_knows_nothing_of_the_one_before():
    bare = ["--data.source", "digits", "--model.name", "m", "--sampling.sigma", "0.5", "--results", "results"]
    before = command("sample", bare).keywords
    asked = command("sample", [*bare, "--sampling.n", "77", "--costs", "seed:1", "--pool.actors", "2"]).keywords
    assert asked["sampling"].n == 77 and before == command("sample", bare).keywords != asked


def help_of(capsys, *words):
    """What a help prints in a terminal of 80 columns."""
    with pytest.raises(SystemExit) as exit:
        main(list(words))
    assert exit.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_is_below_60_lines_with_what_is_required_and_an_example(verb, narrow, capsys):
    out = help_of(capsys, *verb.split(), "--help")
    lines = out.splitlines()
    assert lines[0].startswith(f"usage: raycsr {verb}") and len(lines) < 60 and max(map(len, lines)) <= 80
    assert "\nexample:\n  raycsr " in out
    assert "required:" not in out or out.index("required:") < out.index("options:")


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb != "validate"])
def test_all_help_has_each_option_explained(verb, narrow, capsys):
    out = help_of(capsys, *verb.split(), "--help-all")
    assert max(map(len, out.splitlines())) <= 80
    about = {one.name: one for one in options_of(function_of(verb.split()[-1]))}
    for name in leaves(hints_of(function_of(verb.split()[-1]))):
        flag = about[name].placeholder if about[name].positional else f"--{name}"
        assert f"\n  {flag} " in out and about[name].about, name


def leaves(hints, prefix=""):
    for name, hint in hints.items():
        if group_of(hint) is None:
            yield prefix + name
        else:
            yield from leaves(hints_of(group_of(hint)), f"{prefix}{name}.")


def test_common_options_are_options():
    for name, verb in VERBS.items():
        known = {one.name for one in options_of(function_of(name))} if name != "validate" else set()
        assert set(verb.common) <= known, name


@pytest.mark.parametrize("columns", ["1", "40", "500"])
def test_help_fits_any_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert "--data.source" in help_of(capsys, "sample", "--help")


def test_help_says_defaults_and_forms_and_marks_what_is_common(capsys):
    brief = " ".join(help_of(capsys, "sample", "--help").split())
    assert "[0, 1] pixel units. (default: 0.5)" in brief and "pair:cat/dog,3/8" in brief
    assert "raycsr sample --help-all" in brief and "--pool.help" in brief and "--data.image_roots" not in brief
    every = " ".join(help_of(capsys, "sample", "--help-all").split())
    assert "--data.image_roots" in every and "a number or a list, each a number; default: 0.5" in every


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_help_are_understood(verb):
    words = shlex.split(VERBS[verb].example)
    assert words[0] == verb
    assert callable(command(verb, words[1 : words.index(">")] if ">" in words else words[1:]))


@pytest.mark.parametrize("words", [["tune-rule", "--data"], ["sweep", "--test"], ["validate", "sweep", "--test"]])
def test_a_group_of_options_is_explained_alone(words, capsys):
    group = words.pop()
    out = help_of(capsys, *words, f"{group}.help")
    assert f"{group}.source SOURCE" in out and "One of digits, cifar10" in out and "--results" not in out
    status, _, err = run(capsys, *words, f"{group}s.help")
    assert status == 2 and f"did you mean {group.removeprefix('--')}" in err and err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_options_and_values(shell, capsys):
    pytest.importorskip("shtab")
    status, out, _ = run(capsys, "completion", shell)
    assert status == 0 and "tune-rule" in out and "sampling.precision" in out and "bf16" in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tune", "tune-rule"),
        ("sample --sampling.si", "--sampling.sigma"),
        ("sample --pool.elastic t", "true"),
        ("train --objective.name smoothm", "smoothmix smoothmix_cs"),
        ("validate sample --model.denoiser.name imagenet_m", "imagenet_memnet"),
        ("report --rules exp", "expected_cost:"),
        ("certify --answers m", "majority"),
        ("sample --costs unif", "uniform uniform.csv"),
        ("ls denoi", "denoisers"),
        ("configs digits.", "digits.yaml"),
    ],
)
def test_bash_completes(typed, offered, tmp_path, capsys):
    pytest.importorskip("shtab")
    script = tmp_path / "raycsr"
    script.write_text(run(capsys, "completion", "bash")[1])
    words = ["raycsr", *typed.split()]
    asks = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
    asks += "$(complete -p raycsr | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo \"${COMPREPLY[@]}\""
    (tmp_path / "uniform.csv").touch()  # files are offered, too
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == offered.split(), done.stderr


@pytest.mark.parametrize("buffered", [8192, 16])  # bytes: less is printed, or more
def test_whoever_reads_no_further_is_no_failure(monkeypatch, capsys, buffered):
    reading, writing = os.pipe()
    os.close(reading)  # as `raycsr configs | head` does
    with os.fdopen(writing, "w", buffered) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["configs"]) == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["certify", "--run", "r", "--costs", "[]"], "costs"),
        (["report", "--run", "[]", "--radii", "1"], "run"),
        (["stop", "--run", "[]"], "run"),
        (["rm", "--run", "[]", "--yes", "true"], "run"),
    ],
)
def test_an_empty_list_of_what_is_required_is_refused(words, name, capsys):
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "") and f"{name} is an empty list; give a list" in err and err.count("\n") == 1


def test_completion_without_its_package_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    status, _, err = run(capsys, "completion", "bash")
    assert status == 2 and "raycsr[completion]" in err and err.count("\n") == 1


CONFIG = """
data: {source: digits, limit: 3}
model: {name: cifar_resnet8, num_classes: 10, input_size: 8}
sampling: {sigma: 0.5, n0: 32, n: 64, precision: fp32}
pool: {actors: 1, cpus_per_actor: 0.5}
costs: [uniform]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(CONFIG)
    return ["--config", str(path), "--results", str(tmp_path / "results")]


def test_the_command_line_goes_before_yaml_and_yaml_before_defaults(config, capsys):
    with pytest.raises(SystemExit):
        main(["sample", *config, "--sampling.n", "77", "--costs", "seed:1", "--costs", "seed:2", "--print_config"])
    out = capsys.readouterr().out
    assert "n: 77" in out and "n0: 32" in out and "seed: 0" in out
    assert "- seed:1\n- seed:2" in out and "uniform" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "--sampling.sigm", "1"], "sampling.sigm"),
        (["sample", "--sampling.n", "many"], "sampling.n"),
        (["sample", "--sampling.sigma", "-1"], "sigma must be a positive number"),
        (["sample", "--costs", "seed:cta"], "cta"),
        (["sample", "--model.name", "resnt50"], "resnet50"),
        (["sample", "--data.source", "digts"], "digits"),
        (["sample", "--results", "gs://bucket"], "neither a local path nor s3://"),
        (["sample", "--sampling.precision", "fp8"], "fp8"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(config, words, message, capsys):
    verb, *rest = words
    status, _, err = run(capsys, verb, *config, *rest)
    assert status == 2
    assert message in err and err.startswith("raycsr sample: ") and err.count("\n") == 1


def test_unknown_keys_of_yaml_are_errors(config, tmp_path, capsys):
    (tmp_path / "job.yaml").write_text(CONFIG + "sampels: 3\n")
    status, _, err = run(capsys, "sample", *config)
    assert status == 2 and "sampels" in err and err.count("\n") == 1


@pytest.mark.ray
def test_sample_certify_report_as_a_user_types_them(cluster, config, tmp_path, capsys):
    status, out, _ = run(capsys, "sample", *config)
    assert status == 0
    location = out.splitlines()[-1]  # for programs: the last line is the run
    status, out, _ = run(capsys, "certify", "--run", location, "--costs", "seed:4", "--costs", "pair:4/9")
    assert status == 0 and out.count("certified ") == 2
    status, out, _ = run(
        capsys,
        "report",
        "--run",
        location,
        "--radii",
        "0.1,0.3",
        "--allow_missing",
        "false",
        "--out",
        str(tmp_path / "o"),
    )
    assert status == 0
    assert out.count("| cifar_resnet8") == 6  # three cost matrices, two radii
    assert (tmp_path / "o" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "statement about an image" in (tmp_path / "o" / "report.md").read_text()


def test_errored_images_are_named_and_the_status_is_1(photographs, tmp_path, capsys):
    words = ["--data.source", "imagefolder", "--data.path", photographs["data"].path, "--model.name", "cifar_resnet8"]
    words += ["--model.num_classes", "2", "--model.input_size", "8", "--sampling.n", "64", "--pool.actors", "0"]
    words += ["--results", str(tmp_path / "r")]
    status, out, err = run(capsys, "sample", *words)
    assert status == 1
    assert "1 images could not be sampled and certify nothing: dog/1.png: UnidentifiedImageError" in err
    assert out.splitlines()[-1].startswith(str(tmp_path / "r"))


SECRET = "s3://AKIAEXAMPLE:hushhush@bucket/results"


@pytest.mark.parametrize("words", [["--results", SECRET], [f"--data.path={SECRET}"], ["--print_config"]])
def test_credentials_in_a_location_are_refused_and_not_repeated(words, config, tmp_path, capsys):
    if words == ["--print_config"]:
        path = tmp_path / "job.yaml"
        path.write_text(path.read_text().replace("cifar_resnet8", SECRET))
    status, out, err = run(capsys, "sample", *config, *words)
    assert status == 2 and "a location carries credentials; write s3://bucket/prefix and set AWS_ACCESS_KEY_ID" in err
    assert "hush" not in out + err and "AKIA" not in out + err


def test_options_are_not_abbreviated(config, capsys):
    status, _, err = run(capsys, "sample", *config, "--pool.actor", "1")
    assert status == 2 and "pool.actor" in err


def test_what_breaks_ends_with_a_line_that_says_why(config, capsys, monkeypatch):
    monkeypatch.setattr("raycsr.distributed.sampling.job.open_source", lambda _: {}["source"])
    status, _, err = run(capsys, "sample", *config)
    assert status == 1 and "Traceback" in err
    assert err.splitlines()[-1] == "raycsr sample: failed by KeyError: 'source'"


def test_sigterm_ends_in_one_line(config, capsys, monkeypatch):
    monkeypatch.setattr("raycsr.distributed.sampling.job.open_source", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    status, _, err = run(capsys, "sample", *config)
    assert status == 143
    assert err == "raycsr sample: stopped by SIGTERM; what is committed is kept, run the same command to go on\n"


@pytest.mark.parametrize("verb", ["certify", "report"])
def test_help_says_types_in_words_that_people_know(verb, capsys):
    text = help_of(capsys, verb, "--help-all")
    assert "a list, each text" in " ".join(text.split()) and "Annotated" not in text and "Optional" not in text


def test_what_a_group_that_may_be_left_out_lacks_is_said_in_one_line(capsys):
    status, out, err = run(capsys, "predict", "--data.path", "photos", "--run", "r")
    assert status == 2 and not out
    assert err == "raycsr predict: the following arguments are required: data.source (see `raycsr predict --help`)\n"
