"""`digits models prune`."""

import pytest

from digit_serving.releases.versions import list_versions
from tests.processes import wait_until
from tests.serving.releases.conftest import Service


def test_prune_removes_only_unused_versions(service: Service) -> None:
    for version in (4, 5, 6):
        service.publish(version)
    # Versions in use: 6 is the newest, 2 is stable, and 3 is the previous version of stable.
    for version in (3, 2):
        service.promote(version)
    wait_until(lambda: service.loaded() == {2}, seconds=10)
    (service.models / ".removing-0").mkdir()
    result = service.run("prune", "--keep", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.rpartition(" (")[0] for line in result.stdout.splitlines()[:-1]] == [
        f"Removed {service.models / version}" for version in ("5", "4", "1")
    ]
    assert result.stdout.endswith("Kept 2, 3, 6.\n")
    assert list(list_versions(service.models)) == [6, 3, 2]
    assert not (service.models / ".removing-0").exists()
    assert service.labelled() == 2
    assert service.run("rollback").exit_code == 0
    assert service.labelled() == 3


def test_prune_keeps_loaded_versions_that_the_file_omits(service: Service) -> None:
    service.promote(1)
    wait_until(lambda: service.loaded() == {1}, seconds=10)
    with service.config.lock(1):
        # A relative base path is invalid for the server, which goes on with the file before and version 1.
        config = service.config.read()
        service.config.write(
            str(config.with_versions("digits", [3]).promote("digits", 3, "stable")).replace(
                'path: "/', 'path: "'
            )
        )
    result = service.run("prune", "--keep", 1)
    assert result.stdout == f"Removed {service.models / '2'} (0.1 MB).\nKept 1, 3.\n"


def test_prune_without_server_keeps_every_version(published: Service) -> None:
    result = published.run("prune", "--keep", 1)
    assert result.exit_code == 1
    assert "the model server at" in result.stderr
    assert list(list_versions(published.models)) == [3, 2, 1]


def test_prune_without_models_config_keeps_every_version(service: Service) -> None:
    service.config.path.unlink()
    result = service.run("prune", "--keep", 1)
    assert result.exit_code == 1
    assert "models.config does not exist" in result.stderr
    assert list(list_versions(service.models)) == [3, 2, 1]


@pytest.mark.parametrize("arguments", [["prune"], ["prune", "--keep", "0"]])
def test_prune_without_a_number_to_keep_is_a_usage_error(published: Service, arguments: list[str]) -> None:
    assert published.run(*arguments).exit_code == 2
