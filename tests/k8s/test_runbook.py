"""Commands of the runbook: each names what exists in the cluster or in Compose."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.commands import fake_digits, parse
from tests.manifests import containers, job_from, named, overlay, pod, pods
from tests.readme import ROOT, blocks

PAGE = (ROOT / "docs" / "how-to" / "runbook.md").read_text()
COMMANDS = re.findall(r"(?<!`)`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL))
KINDS = {
    "cronjob": "CronJob",
    "deployment": "Deployment",
    "pvc": "PersistentVolumeClaim",
    "service": "Service",
}


def test_kubernetes_commands_name_objects_of_the_namespace() -> None:
    known = {(item["kind"], item["metadata"]["name"]) for item in overlay("production")}
    found = [
        (KINDS[kind], name)
        for command in COMMANDS
        if command.startswith("kubectl --namespace digits ")
        for kind, name in re.findall(rf"\b({'|'.join(KINDS)})[/ ]([a-z-]+)", command)
    ]
    assert set(found) <= known
    assert {kind for kind, _ in found} == set(KINDS.values())


def test_logs_are_those_of_all_pods_of_a_component() -> None:
    labels = [template["metadata"]["labels"] for template in pods(overlay("production"))]
    selectors = re.findall(r"kubectl \S+ digits logs .*?--selector (\S+)=(\S+)", "\n".join(COMMANDS))
    assert {value for _, value in selectors} == {"gateway", "model-server"}
    assert all(any(each.get(name) == value for each in labels) for name, value in selectors)
    # kubectl shows one pod of a Deployment.
    assert not any("logs" in command and "deployment/" in command for command in COMMANDS)


def test_compose_commands_name_services() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    found = [
        words
        for words in map(str.split, COMMANDS)
        if words[:2] == ["docker", "compose"] and words[2] in ("run", "exec", "restart", "logs")
    ]
    assert len(found) > 7
    for words in found:
        assert any(word in services for word in words[3:]), words


def test_digits_commands_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    # The gateway's containers have the variables.
    monkeypatch.setenv("DIGITS_FEEDBACK", "sqlite:///feedback.db")
    monkeypatch.setenv("DIGITS_API_KEYS", "keys")
    found = [re.search(r"digits ((?:models|feedback|keys) .+)", command) for command in COMMANDS]
    calls = [match[1] for match in found if match]
    assert len(calls) > 7
    for call in calls:
        parse(shlex.split(call))


def test_each_platform_has_a_command_for_each_task() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+) \| (.+) \|$", PAGE.partition("\n\n## ")[0], re.MULTILINE)
    tasks = {"verify a version", "delete old versions", "train with the feedback", "wrong answers"}
    assert tasks <= {task for task, _, _ in rows}


def test_job_of_the_runbook_runs_its_command_in_the_training_pod(tmp_path: Path) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed; Debian's package kubectl has it")
    (block,) = blocks("bash", PAGE)
    create, patch = re.findall(r"kubectl [^|]*?(?= \|\n)", block)
    cronjob = named(overlay("local"), "CronJob", "training")
    assert f"--from=cronjob/{cronjob['metadata']['name']} " in create
    variable = block.partition("\n")[0]
    job = job_from(cronjob, "runbook")
    patched = subprocess.run(
        ["bash", "-ec", f"{variable}\n{patch}"],
        input=yaml.safe_dump(job),
        capture_output=True,
        text=True,
        check=True,
    )
    (container,) = containers(pod(yaml.safe_load(patched.stdout)))
    assert {**container, "command": None} == {**containers(pod(job))[0], "command": None}
    environment = {**os.environ, **fake_digits(tmp_path)}
    printed = subprocess.check_output(container["command"], env=environment, text=True)
    assert printed == "models verify 2\n"
    parse(printed.split())
