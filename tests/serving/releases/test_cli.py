"""`digits models verify` and `check`."""

import shutil

import pytest

from tests.serving.releases.conftest import Service


@pytest.mark.usefixtures("verified_by_files")
def test_verify_enters_a_whole_version_and_verifies_it_again(published: Service) -> None:
    whole = published.copy(4)
    assert published.run("verify", 4).output == f"{whole} can be served.\n"
    assert published.config.listed("digits") == {1, 2, 3, 4}
    assert published.config.labels("digits") == {"stable": 1}
    shutil.rmtree(whole / "variables")
    result = published.run("verify", 4)
    assert (result.exit_code, result.stderr) == (1, f"Error: {whole} can't be served: no variables\n")


@pytest.mark.usefixtures("verified_by_files")
def test_verify_with_a_foreign_models_config_leaves_it_alone(published: Service) -> None:
    published.folder.config_path.write_text("# Mine.")
    assert "Digits did not write" in published.run("verify", 1).stdout
    assert published.folder.config_path.read_text() == "# Mine."


def test_check_corrects_a_copied_folder(published: Service) -> None:
    shutil.rmtree(published.versions / "2")
    root = published.folder.root.rename(published.folder.root.with_name("copied"))
    result = published.run("check", "--models", root)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{root / 'digits' / '2'} is missing or incomplete, so it is not served; "
        "once it is restored, run `digits models verify 2 --model digits`\n"
    )
    text = (root / "models.config").read_text()
    assert f'base_path: "{root.resolve() / "digits"}"' in text
    assert "versions: 2" not in text
