import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import raycsr
from raycsr.verbs import VERBS

PACKAGE = Path(raycsr.__file__).parent

SLOW = {"torch", "torchvision", "timm", "sklearn", "scipy.stats", "ray.data", "ray.tune", "ray.train"}

# Each may import those before it, never one after it.
LAYERS = [
    "credentials",
    "errors",
    "extensions",
    "sealed",
    "store",
    "signals",
    "progress",
    "class_names",
    "forms",
    "options",
    "costs",
    "certification",
    "models",
    "smoothing",
    "training",
    "results",
    "data",
    "deployment",
    "reports",
    "catalogue",
    "distributed",
    "verbs",
    "cli",
    "__main__",
]


@pytest.mark.parametrize("module", ["raycsr", "raycsr.costs", "raycsr.certification"])
def test_certifying_needs_neither_torch_nor_ray(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_reading_results_needs_neither_torch_nor_ray():
    code = "import sys, raycsr; raycsr.load_certificates; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_and_its_help_load_no_torch(verb):
    """A tenth of the time that torch and timm take to import; nothing of Ray but the package itself."""
    code = "import sys, time; from raycsr.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += f"print(sorted({SLOW} & set(sys.modules)), time.process_time())"
    words = ["validate", "sample"] if verb == "validate" else [verb]
    done = subprocess.run([sys.executable, "-c", code, *words, "--help-all"], capture_output=True, text=True)
    loaded, seconds = done.stdout.splitlines()[-1].split()
    assert loaded == "[]", done.stderr
    assert float(seconds) < 4, "of CPU, and half of that on a machine that does nothing else"
    assert not re.findall(r"{\w+}", done.stdout), "a blank that another import fills in"


def test_decoding_and_certifying_load_no_torch():
    modules = ["raycsr.data.decode", "raycsr.distributed.sampling.decoding", "raycsr.distributed.certify_run"]
    code = f"import sys, {', '.join(modules)}; print(sorted({SLOW} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_imports_point_one_way():
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "raycsr" and len(parts) > 1:
                    assert LAYERS.index(parts[1]) <= LAYERS.index(layer), f"{path} imports {name}"


def test_verbs_use_each_other_whole():
    """`evaluate` reports, `quickstart` trains; what two verbs share beside that has a place of its own below them."""
    for path in (PACKAGE / "verbs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("raycsr.verbs."):
                verb = node.module.removeprefix("raycsr.verbs.")
                assert [alias.name for alias in node.names] == [verb], f"{path} imports more of {node.module}"


@pytest.mark.parametrize("package", ["training", "results", "reports", "models", "smoothing", "data", "deployment"])
def test_only_what_is_distributed_knows_ray(package):
    for path in (PACKAGE / package).rglob("*.py"):
        imported = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not any("import ray" in ast.unparse(node).replace("raycsr", "") for node in imported), path


def test_every_module_says_what_it_is_and_public_names_resolve():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
    assert all(getattr(raycsr, name) for name in raycsr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        raycsr.nothing  # noqa: B018


MANY = 8  # parameters: what has more takes a dataclass, which travels whole
PUBLIC = {
    *("certify_counts", "certify_votes", "count_votes", "BaseClassifier.__init__"),
    *("SmoothedClassifier.__init__", "SmoothedClassifier.from_run"),
}


def test_no_two_files_of_tests_have_one_name():
    """pytest takes the second for the first, and collects neither where one worker has both."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_function_has_many_parameters():
    """But for public ones: verbs and objectives are called by their options. A kernel takes no dataclass."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        methods = {
            method: f"{one.name}.{method.name}" for one in classes for method in one.body if _is_function(method)
        }
        for node in filter(_is_function, ast.walk(tree)):
            options = path.parent.name == "objectives" or (path.parent.name == "verbs" and path.stem == node.name)
            kernel = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            many = len([one for one in given if one.arg not in ("self", "cls")]) > MANY
            name = methods.get(node, node.name)
            assert not many or options or kernel or name in PUBLIC, f"{path}: {name} has more than {MANY} parameters"


def _is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
