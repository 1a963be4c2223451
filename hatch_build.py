"""Hatch build hook: compiles the vendored .proto files when the package is built or installed."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc_tools
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = "client/digit_core/tfserving/protos"
OUTPUT = "descriptors.binpb"


class ProtoBuildHook(BuildHookInterface):
    """Adds the descriptor set that `digit_core.tfserving.protos` loads.

    An editable installation has the descriptor set in the source folder. A wheel takes it from a temporary
    folder, since Docker mounts the sources read-only.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the .proto files before the build collects its files."""
        folder = Path(self.root, PROTOS)
        if version == "editable":
            compile_protos(folder, folder / OUTPUT)
            return
        self._temporary = TemporaryDirectory()
        output = Path(self._temporary.name, OUTPUT)
        compile_protos(folder, output)
        build_data["force_include"][str(output)] = f"digit_core/tfserving/protos/{OUTPUT}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder after the wheel is written."""
        if version != "editable":
            self._temporary.cleanup()


def compile_protos(folder: Path, output: Path) -> None:
    """Write the descriptor set of every .proto file below `folder`, and of their imports, to `output`."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted(str(path) for path in folder.rglob("*.proto"))
    arguments = ["--include_imports", f"--descriptor_set_out={output}", f"-I{folder}", f"-I{well_known}"]
    if protoc.main(["protoc", *arguments, *sources]):
        raise RuntimeError("protoc failed; its messages precede this one")
