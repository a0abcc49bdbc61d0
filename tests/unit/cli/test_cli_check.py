"""`sluice check DIR`."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serving.cli.app import app

CONFIGS = Path(__file__).parents[3] / "configs"


def check(*arguments: object) -> Result:
    """Call `sluice check` with these arguments."""
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the demo's configuration and models, to spoil."""
    root = tmp_path / "demo"
    for folder in ("models", "features", "artifacts"):
        shutil.copytree(CONFIGS / "demo" / folder, root / folder)
    (root / "data").mkdir()
    shutil.copy(CONFIGS / "demo" / "data" / "people.parquet", root / "data")
    shutil.copy(CONFIGS / "demo" / "gateway.yaml", root)
    return root


def test_a_sound_directory_is_summed_up(demo: Path) -> None:
    """Exit 0 and one line that says what was looked at."""
    result = check(demo)

    assert result.exit_code == 0
    assert result.stdout == "ok: 1 model, 2 versions, 2 feature views\n"


def test_the_directory_is_left_as_it_was(demo: Path) -> None:
    """Checking writes nothing beside the configuration."""
    before = sorted(demo.rglob("*"))

    check(demo)

    assert sorted(demo.rglob("*")) == before


def test_mistakes_are_lines_and_exit_1(demo: Path) -> None:
    """Each line can be clicked in an editor; the count comes last."""
    (demo / "gateway.yaml").write_text("limits: {max_bdy: 1MiB}\nstor: embedded\n")

    result = check(demo)

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        (
            "gateway.yaml:1:10: error: limits.max_bdy: unknown key `max_bdy` "
            "(did you mean `max_body`?)"
        ),
        "gateway.yaml:2:1: error: stor: unknown key `stor` (did you mean `store`?)",
        "2 errors",
    ]


def test_warnings_alone_exit_0(demo: Path) -> None:
    """A warning is told and counted, and keeps nobody from going on."""
    (demo / "models" / "employment.yaml").rename(demo / "models" / "jobs.yaml")

    result = check(demo)

    assert result.exit_code == 0
    assert ": warning: model: the file is called `jobs.yaml`" in result.stdout
    assert result.stdout.endswith("ok: 1 model, 2 versions, 2 feature views, 1 warning\n")


def test_the_answer_is_also_json(demo: Path) -> None:
    """The same verdict for programs, with each problem's parts apart."""
    (demo / "gateway.yaml").write_text("schema_version: 1\nstor: embedded\n")

    result = check(demo, "--json")

    verdict = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (verdict["ok"], verdict["errors"], verdict["warnings"]) == (False, 1, 0)
    assert verdict["problems"] == [
        {
            "file": "gateway.yaml",
            "line": 2,
            "column": 1,
            "path": "stor",
            "message": "unknown key `stor`",
            "suggestion": "did you mean `store`?",
            "severity": "error",
        }
    ]


def test_a_corrupt_model_file_is_refused_with_its_reason(demo: Path) -> None:
    """A file with the right digest that is no model is found by opening it."""
    import hashlib

    model, yaml = demo / "artifacts" / "employment-v2.onnx", demo / "models" / "employment.yaml"
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    model.write_bytes(model.read_bytes()[:1000])
    after = hashlib.sha256(model.read_bytes()).hexdigest()
    yaml.write_text(yaml.read_text().replace(before, after))

    result = check(demo)

    assert result.exit_code == 1
    assert "error: versions.v2.path: the model file must not be served: " in result.stdout
    assert result.stdout.endswith("1 error\n")
    assert str(demo) not in result.stdout


def test_features_that_do_not_fit_the_model_file_are_found(demo: Path) -> None:
    """The file's own column names are compared with the configuration's."""
    yaml = demo / "models" / "employment.yaml"
    yaml.write_text(yaml.read_text().replace("person_profile.*, ", ""))

    result = check(demo)

    assert result.exit_code == 1
    assert "4 features listed, but `X` takes 16 columns (version `v1`)" in result.stdout
    assert "the file wants `AGEP`" in result.stdout


def test_model_files_need_not_be_there_when_asked(demo: Path) -> None:
    """--no-models judges the rest, and says that it did not look."""
    shutil.rmtree(demo / "artifacts")

    result = check(demo, "--no-models")

    assert check(demo).exit_code == 1
    assert result.exit_code == 0
    assert result.stdout.endswith("(model files not looked at)\n")


def test_an_exposed_listener_is_accepted_only_by_name(demo: Path) -> None:
    """--insecure-bind judges as the start with that option would."""
    (demo / "gateway.yaml").write_text("listen: {http: 0.0.0.0:8000}\n")

    refused, forced = check(demo, "--no-models"), check(demo, "--no-models", "--insecure-bind")

    assert (refused.exit_code, forced.exit_code) == (1, 0)
    assert "--insecure-bind" in refused.stdout
    assert ": warning: listen.http" in forced.stdout


def test_a_directory_that_is_not_there_is_an_answer_not_a_crash(tmp_path: Path) -> None:
    """Exit 1 and one line."""
    result = check(tmp_path / "nowhere")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "gateway.yaml: error: no such file (its directory does not exist either)",
        "1 error",
    ]
