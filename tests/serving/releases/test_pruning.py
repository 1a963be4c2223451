"""`digits models prune`."""

from tests.serving.releases.conftest import Service


def test_prune_unloads_and_removes_what_no_label_needs(service: Service) -> None:
    for version in (4, 5, 6):
        service.publish(version)
    # 6 is the newest, 2 is stable, and 3 was stable before.
    for version in (3, 2):
        service.promote(version)
    service.copy(0)
    (service.versions / ".removing-0").mkdir()
    result = service.run("prune", "--keep", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    waiting, *removed, kept = result.stdout.splitlines()
    assert waiting == "Waiting for the model server to unload what is removed ..."
    assert [line.rpartition(" (")[0] for line in removed] == [
        f"Removed {service.versions / version}" for version in ("0", "1", "4", "5")
    ]
    assert kept == "Kept 2, 3, 6."
    assert list(service.folder.versions("digits")) == [6, 3, 2]
    assert (service.config.listed("digits"), service.loaded()) == ({2, 3, 6}, {2, 3, 6})
    assert not (service.versions / ".removing-0").exists()
    assert service.labelled() == 2
    assert service.run("rollback").exit_code == 0
    assert service.labelled() == 3


def test_prune_by_default_keeps_ten(published: Service) -> None:
    for version in range(4, 13):
        published.publish(version)
    result = published.run("prune", "--offline")
    assert result.stdout.splitlines()[-1] == "Kept 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12."


def test_prune_without_server_keeps_every_version(published: Service) -> None:
    config = published.config
    result = published.run("prune", "--keep", 1, "--timeout", 0.5)
    assert result.exit_code == 1
    assert "the model server at" in result.stderr
    assert list(published.folder.versions("digits")) == [3, 2, 1]
    assert published.config == config


def test_prune_to_no_version_is_a_usage_error(published: Service) -> None:
    assert published.run("prune", "--keep", 0).exit_code == 2
