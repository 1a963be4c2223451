"""Workloads on this machine without a cluster: Podman plays them, and what it leaves out is done here."""

import copy
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml

from tests.kustomize import Object, containers, of_kind, pod
from tests.processes import wait_until

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@dataclass(frozen=True)
class Kubelet:
    """Pods on a Podman network of their own; all that it makes carries its name.

    Podman plays jobs, deployments (one pod each) and config maps. Of the rest this does what training and
    serving need: it makes volumes, with the subdirectories and the group that pods ask for, gives pods the
    names of the Services that select them, and asks the probes, since Podman would run curl inside.
    """

    name: str

    def start(self) -> None:
        """Make the network, and let through what crosses it, which Docker has dropped."""
        self.stop()
        self._podman("network", "create", "--interface-name", self.name, self.name)
        self._firewall("-I")

    def stop(self) -> None:
        """Remove whatever there is of it."""
        for what in ("pod", "volume"):
            names = self._podman(what, "ls", "--quiet", "--filter", f"name=^{self.name}-").split()
            if names:
                self._podman(what, "rm", "--force", *names)
        self._podman("network", "rm", "--force", self.name)
        self._firewall("-D")

    def play(self, workload: Object, objects: Sequence[Object]) -> None:
        """Start the pod of a workload among these objects, in place of the one before."""
        played = self._translated(workload)
        names = [
            service["metadata"]["name"]
            for service in of_kind(objects, "Service")
            if service["spec"]["selector"].items() <= pod(workload)["metadata"]["labels"].items()
        ]
        network = ":".join([self.name, ",".join(f"alias={name}" for name in names)]).rstrip(":")
        for claim in self._claims(played):
            self._make_volume(claim, pod(played))
        document = yaml.safe_dump_all([*of_kind(objects, "ConfigMap"), played])
        self._podman("kube", "play", "--replace", "--network", network, "-", stdin=document)

    def finished(self, workload: Object) -> str:
        """What a job printed, which has to succeed."""
        status = self._podman("wait", self._container(workload)).strip()
        printed = self._podman("logs", self._container(workload))
        assert status == "0", printed
        return printed

    def wait_until_ready(self, workload: Object) -> None:
        """Wait until all its probes hold."""
        try:
            wait_until(lambda: all(self.holds(workload, kind) for kind in PROBES))
        except AssertionError as error:
            raise AssertionError(self._podman("logs", self._container(workload))) from error

    def holds(self, workload: Object, kind: str) -> bool:
        """Whether the probe of this kind succeeds now."""
        (container,) = pod(workload)["spec"]["containers"]
        probe = container[kind]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        address = self.address(workload)
        timeout = probe.get("timeoutSeconds", 1)
        if "grpc" in probe:
            return _healthy(f"{address}:{probe['grpc']['port']}", timeout)
        if "tcpSocket" in probe:
            return _open(address, ports[probe["tcpSocket"]["port"]], timeout)
        return _answers(
            f"http://{address}:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}", timeout
        )

    def address(self, workload: Object) -> str:
        """Of the workload's pod."""
        infra = self._podman(
            "pod", "inspect", self._pod(workload), "--format", "{{.InfraContainerID}}"
        ).strip()
        form = f'{{{{(index .NetworkSettings.Networks "{self.name}").IPAddress}}}}'
        return self._podman("inspect", infra, "--format", form).strip()

    def kill(self, workload: Object) -> None:
        """End the workload's pod at once."""
        self._podman("pod", "rm", "--force", "--time", "0", self._pod(workload))

    def execute(self, workload: Object, *command: str) -> str:
        """What a command prints in the workload's container."""
        return self._podman("exec", self._container(workload), *command)

    def volume(self, claim: str) -> Path:
        """Where a volume is."""
        return Path(
            self._podman("volume", "inspect", f"{self.name}-{claim}", "--format", "{{.Mountpoint}}").strip()
        )

    def build(self, tag: str, containerfile: str, folder: Path) -> None:
        """An image for Podman alone."""
        self._podman("build", "--tag", tag, "--file", "-", str(folder), stdin=containerfile)

    def _translated(self, workload: Object) -> Object:
        played = copy.deepcopy(workload)
        played["metadata"]["name"] = f"{self.name}-{workload['metadata']['name']}"
        for container in containers(pod(played)):
            for kind in PROBES:
                container.pop(kind, None)
        for volume in pod(played)["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]
                claim["claimName"] = f"{self.name}-{claim['claimName']}"
        return played

    def _claims(self, played: Object) -> list[Object]:
        return [volume for volume in pod(played)["spec"]["volumes"] if "persistentVolumeClaim" in volume]

    def _make_volume(self, volume: Object, template: Object) -> None:
        name = volume["persistentVolumeClaim"]["claimName"]
        self._podman("volume", "create", "--ignore", name)
        folder = self.volume(name.removeprefix(f"{self.name}-"))
        for container in containers(template):
            for mount in container["volumeMounts"]:
                if mount["name"] == volume["name"]:
                    (folder / mount.get("subPath", "")).mkdir(exist_ok=True)
        if group := template["spec"]["securityContext"].get("fsGroup"):
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, group=group)
                path.chmod(0o2775)

    def _pod(self, workload: Object) -> str:
        return f"{self.name}-{workload['metadata']['name']}-pod"

    def _container(self, workload: Object) -> str:
        return f"{self._pod(workload)}-{containers(pod(workload))[-1]['name']}"

    def _firewall(self, action: str) -> None:
        rule = ["DOCKER-USER", "-i", self.name, "-o", self.name, "-j", "ACCEPT"]
        subprocess.run(["iptables", action, *rule], capture_output=True)

    def _podman(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["podman", *arguments],
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}"
        return done.stdout


def _answers(url: str, timeout: float) -> bool:
    try:
        return httpx.get(url, timeout=timeout).is_success
    except httpx.HTTPError:
        return False


def _open(address: str, port: int, timeout: float) -> bool:
    try:
        socket.create_connection((address, port), timeout).close()
    except OSError:
        return False
    return True


def _healthy(target: str, timeout: float) -> bool:
    with grpc.insecure_channel(target) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return bool(check(b"", timeout=timeout) == b"\x08\x01")
        except grpc.RpcError:
            return False
