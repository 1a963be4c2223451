"""`digits models verify`, `check`, and the Jobs of `promote` and `rollback`."""

import shutil

import pytest
import yaml

from tests.serving.releases.conftest import Service


def test_verify_enters_a_whole_version_and_refuses_a_half(published: Service) -> None:
    half, whole = published.copy(4), published.copy(5)
    shutil.rmtree(half / "variables")
    assert published.run("verify", 5).output == f"{whole} can be served.\n"
    result = published.run("verify", 4)
    assert result.exit_code == 1
    assert f"{half} can't be served: " in result.stderr
    assert published.config.listed("digits") == {1, 2, 3, 5}
    assert published.config.labels("digits") == {"stable": 1}
    shutil.rmtree(published.versions / "5" / "variables")
    assert published.run("verify", 5).exit_code == 1


def test_verify_with_a_foreign_models_config_leaves_it_alone(published: Service) -> None:
    published.folder.config_path.write_text("# Mine.")
    assert "Digits did not write" in published.run("verify", 1).stdout
    assert published.folder.config_path.read_text() == "# Mine."


def test_check_corrects_a_copied_folder(published: Service) -> None:
    shutil.rmtree(published.versions / "2")
    root = published.folder.root.rename(published.folder.root.with_name("copied"))
    result = published.run("check", "--models", root)
    assert result.exit_code == 0
    assert result.stdout == f"{root / 'digits' / '2'} is missing or incomplete, and not served\n"
    text = (root / "models.config").read_text()
    assert f'base_path: "{root.resolve() / "digits"}"' in text
    assert "versions: 2" not in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("promote", 2, "--model", "fashion"), ["promote", "2", "--version-label", "stable"]),
        (("rollback", "--model", "fashion"), ["rollback", "--version-label", "stable"]),
    ],
)
def test_job_runs_the_command_in_the_cluster(
    published: Service, command: tuple[str, ...], words: list[str]
) -> None:
    result = published.run(*command, "--job", "--image", "registry/gateway:1")
    job = yaml.safe_load(result.stdout)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["digits", "models", *words, "--model", "fashion"]
    assert container["image"] == "registry/gateway:1"
    assert job["metadata"]["name"].startswith(f"{words[0]}-")
    assert job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "releases"
