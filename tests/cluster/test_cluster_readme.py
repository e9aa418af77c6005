"""Commands, names and prices of cluster/README.md are true."""

import ast
import itertools
import re
import shlex
import subprocess

import click
import pytest
import yaml
from commands import understood
from manifests import CLUSTER, EXTRAS, FILES, PLATFORMS, ROOT

import raycsr

README = (CLUSTER / "README.md").read_text()


def commands():
    lines = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ").splitlines()
    split = []
    for line in lines:
        words = [word for word in shlex.split(line, comments=True) if word != "&"]
        split += [list(part) for is_pipe, part in itertools.groupby(words, lambda word: word == "|") if not is_pipe]
    return split


def test_each_block_of_the_readme_is_shell():
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words)[:40])
def test_each_command_of_the_readme_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert understood(words)


@pytest.mark.parametrize("name", ["forms/job/rayjob.yaml", "platforms/kind/kustomization.yaml"])
def test_the_entrypoint_of_each_job_is_understood(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    manifest = yaml.safe_load((CLUSTER / name).read_text())
    if "patches" in manifest:
        (patch,) = (one["patch"] for one in manifest["patches"] if one["target"]["kind"] == "RayJob")
        (manifest,) = ({"spec": {"entrypoint": one["value"]}} for one in yaml.safe_load(patch))
    assert understood(shlex.split(manifest["spec"]["entrypoint"]))


def test_the_job_runs_what_the_readme_submits():
    entrypoint = yaml.safe_load((CLUSTER / "forms/job/rayjob.yaml").read_text())["spec"]["entrypoint"]
    submitted = " ".join(" ".join(words) for words in commands())
    assert re.sub(r"\$\{(\w+)\}", r"$\1", entrypoint) in submitted


@pytest.mark.parametrize(
    "line",
    [
        "ray job submit --working-directory . -- raycsr evaluate",
        "ray job submit -- python -m jobs.evaluate --config jobs/configs/imagenet.yaml --output s3://b/r",
        "raycsr evaluate --config jobs/configs/imagenet.yaml --results s3://b/r --pool.workers 3",
        "RAYCSR_CLIENTS=a:b serve run jobs.serve:app directory=s3://b/deployed",
    ],
)
def test_a_fault_in_a_command_is_seen(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((raycsr.errors.UserError, click.UsageError)):
        understood(shlex.split(line))


def test_the_files_that_the_readme_names_are_there_and_none_of_the_choices_is_missing():
    named = set(re.findall(r"`((?:[\w-]+/)*\w+\.(?:ya?ml|json|sh|py))`", README))
    assert all((CLUSTER / name).exists() for name in named), named
    assert {"words.sh", "kustomization.yaml"} <= named
    assert all((ROOT / name).exists() for name in re.findall(r"cluster/[\w./]+\w", README))
    lines = re.findall(
        r"^  (?:# )?- ((?:platforms|forms|extras)/[\w-]+)", (CLUSTER / "kustomization.yaml").read_text(), re.MULTILINE
    )
    for kind, there in {"platforms": PLATFORMS, "forms": ["job", "service"], "extras": EXTRAS}.items():
        assert sorted(line.partition("/")[2] for line in lines if line.startswith(kind)) == there
        assert all(f"`{one}`" in README or f"`{kind}/{one}`" in README for one in there)


def test_the_readmes_python_uses_public_names():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "raycsr"}
    assert len(used) == 4 and all(hasattr(raycsr, name) for name in used)


def test_the_price_table_is_the_formulas():
    bare = {  # forward passes a second, as cited
        **{"T4 (": 1198, "A10G (": 3729.86 * 600 / 936, "H100-like (": 12191.9},
        **{"A100 (1.50), a diffusion": 32 / 1.5, "A100 (1.50), rRCM": 85 * 32 / 1.5},
    }
    for gpu, rate in bare.items():
        (row,) = (line for line in README.splitlines() if line.startswith(f"| {gpu}"))
        name, stated, *cells = row.replace(",", "").removeprefix("| ").removesuffix(" |").split("|")
        dollars = float(re.search(r"\(([\d.]+)\)", name)[1])
        assert float(stated.split()[0]) == pytest.approx(rate, abs=1)
        for n, cell in zip((10_000, 100_000, 547 - 64), cells, strict=True):
            if not cell.strip():  # nothing is known
                continue
            hours, price = map(float, re.fullmatch(r" *([\d.]+) \(\$([\d.]+)\) *", cell).groups())
            expected = 50_000 * (64 + n) / (0.8 * rate) / 3600
            assert hours == pytest.approx(expected, abs=min(0.5, 0.05 * expected))
            assert price == pytest.approx(expected * dollars, abs=min(1, 0.05 * expected * dollars))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CLUSTER)) for path in FILES])
def test_there_are_no_credentials_and_each_file_says_what_it_is(path):
    text = path.read_text()
    found = re.search(
        r"AKIA[0-9A-Z]{12,}|aws_secret_access_key=\w|aws_access_key_id=\w|PRIVATE KEY|[0-9a-f]{40,}", text, re.I
    )
    assert not found
    assert path.suffix == ".json" or text[0] == "#" or text.startswith('"""')
