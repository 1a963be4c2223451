"""Kubernetes workloads on Podman, without a cluster."""

import copy
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.manifests import Object, containers, of_kind, pod
from tests.processes import accepts, answers, run, wait_until

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@dataclass(frozen=True)
class PodmanCluster:
    """Pods on a Podman network; the names of all its objects begin with `name`.

    `podman kube play` runs jobs, deployments (one pod each) and config maps. This class adds subdirectories
    and fsGroup of volumes, the DNS names of the Services that select a pod, and probes: for these, Podman
    would need curl in the container.
    """

    name: str

    def start(self) -> None:
        """Create the network, and a firewall rule for it, since Docker drops forwarded packets."""
        self.stop()
        self._podman("network", "create", "--interface-name", self.name, self.name)
        self._firewall("-I")

    def stop(self) -> None:
        """Remove pods, volumes, network and firewall rule."""
        for kind in ("pod", "volume"):
            names = self._podman(kind, "ls", "--quiet", "--filter", f"name=^{self.name}-").split()
            if names:
                self._podman(kind, "rm", "--force", *names)
        self._podman("network", "rm", "--force", self.name)
        self._firewall("-D")

    def play(self, workload: Object, objects: Sequence[Object]) -> None:
        """Start a workload's pod with the config maps and Services of `objects`; replace a running one."""
        manifest = self._to_podman(workload)
        names = [
            service["metadata"]["name"]
            for service in of_kind(objects, "Service")
            if service["spec"]["selector"].items() <= pod(workload)["metadata"]["labels"].items()
        ]
        network = ":".join([self.name, ",".join(f"alias={name}" for name in names)]).rstrip(":")
        for volume in pod(manifest)["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                self._make_volume(volume, pod(manifest))
        document = yaml.safe_dump_all([*of_kind(objects, "ConfigMap"), manifest])
        self._podman("kube", "play", "--replace", "--network", network, "-", stdin=document)

    def wait_for_job(self, workload: Object) -> str:
        """Wait for a job to succeed; return its output."""
        status = self._podman("wait", self._container(workload)).strip()
        printed = self._podman("logs", self._container(workload))
        assert status == "0", printed
        return printed

    def wait_until_ready(self, workload: Object) -> None:
        """Wait until all probes of a workload succeed."""
        try:
            wait_until(lambda: all(self.probe_succeeds(workload, kind) for kind in PROBES))
        except AssertionError as error:
            raise AssertionError(self._podman("logs", self._container(workload))) from error

    def probe_succeeds(self, workload: Object, kind: str) -> bool:
        """True if the probe of this kind succeeds."""
        (container,) = pod(workload)["spec"]["containers"]
        probe = container[kind]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        address = self.address(workload)
        timeout = probe.get("timeoutSeconds", 1)
        if "grpc" in probe:
            return _is_serving(f"{address}:{probe['grpc']['port']}", timeout)
        if "tcpSocket" in probe:
            return accepts(ports[probe["tcpSocket"]["port"]], address, timeout)
        port, path = ports[probe["httpGet"]["port"]], probe["httpGet"]["path"]
        return answers(f"http://{address}:{port}{path}", timeout)

    def address(self, workload: Object) -> str:
        """Return the IP address of a workload's pod."""
        infra = self._podman(
            "pod", "inspect", self._pod(workload), "--format", "{{.InfraContainerID}}"
        ).strip()
        form = f'{{{{(index .NetworkSettings.Networks "{self.name}").IPAddress}}}}'
        return self._podman("inspect", infra, "--format", form).strip()

    def volume(self, claim: str) -> Path:
        """Return the path of a volume."""
        return Path(
            self._podman("volume", "inspect", f"{self.name}-{claim}", "--format", "{{.Mountpoint}}").strip()
        )

    def _to_podman(self, workload: Object) -> Object:
        manifest = copy.deepcopy(workload)
        manifest["metadata"]["name"] = f"{self.name}-{workload['metadata']['name']}"
        for container in containers(pod(manifest)):
            for kind in PROBES:
                container.pop(kind, None)
        for volume in pod(manifest)["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]
                claim["claimName"] = f"{self.name}-{claim['claimName']}"
        return manifest

    def _make_volume(self, volume: Object, template: Object) -> None:
        name = volume["persistentVolumeClaim"]["claimName"]
        self._podman("volume", "create", "--ignore", name)
        folder = self.volume(name.removeprefix(f"{self.name}-"))
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
        environment = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        return run("podman", *arguments, input=stdin, env=environment)


def _is_serving(target: str, timeout: float) -> bool:
    with grpc.insecure_channel(target) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return bool(check(b"", timeout=timeout) == b"\x08\x01")
        except grpc.RpcError:
            return False
