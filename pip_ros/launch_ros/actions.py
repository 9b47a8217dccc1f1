"""In: a node of an installed package. Out: its process, with name, namespace, parameters and remappings."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from launch._refuse import missing_names, strict_keywords
from launch.action import Action, Condition, LaunchContext, SomeSubstitutionsType, perform
from launch.process import ExecuteProcess

from .parameter_descriptions import ParameterFile, evaluate
from .substitutions import ExecutableInPackage

_Remappings = Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]]


@strict_keywords
class Node(ExecuteProcess):
    """Run an executable as a ROS node; `parameters` are dicts and paths of YAML files, later ones win."""

    def __init__(
        self,
        *,
        executable: SomeSubstitutionsType,
        package: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        namespace: SomeSubstitutionsType | None = None,
        exec_name: SomeSubstitutionsType | None = None,
        parameters: list[Any] | None = None,
        remappings: _Remappings | None = None,
        ros_arguments: Iterable[SomeSubstitutionsType] | None = None,
        arguments: Iterable[SomeSubstitutionsType] | None = None,
        prefix: SomeSubstitutionsType | None = None,
        cwd: SomeSubstitutionsType | None = None,
        env: Mapping[SomeSubstitutionsType, SomeSubstitutionsType] | None = None,
        additional_env: Mapping[SomeSubstitutionsType, SomeSubstitutionsType] | None = None,
        sigterm_timeout: SomeSubstitutionsType = "5",
        sigkill_timeout: SomeSubstitutionsType = "5",
        emulate_tty: bool = False,
        output: SomeSubstitutionsType = "log",
        on_exit: Any = None,
        respawn: bool | SomeSubstitutionsType = False,
        respawn_delay: float | None = None,
        respawn_max_retries: int = -1,
        condition: Condition | None = None,
    ) -> None:
        program = (
            executable if package is None else ExecutableInPackage(executable=executable, package=package)
        )
        super().__init__(
            cmd=[program, *(arguments or [])],
            name=exec_name,
            prefix=prefix,
            cwd=cwd,
            env=env,
            additional_env=additional_env,
            sigterm_timeout=sigterm_timeout,
            sigkill_timeout=sigkill_timeout,
            emulate_tty=emulate_tty,
            output=output,
            on_exit=on_exit,
            respawn=respawn,
            respawn_delay=respawn_delay,
            respawn_max_retries=respawn_max_retries,
            condition=condition,
        )
        if isinstance(parameters, (str, Mapping)):
            raise TypeError(
                f"got parameters={parameters!r}, expected a list of dicts and paths of YAML files"
            )
        self.node_name = name
        self.namespace = namespace
        self.parameters = list(parameters or [])
        self.remappings = list(remappings or [])
        self.ros_arguments = list(ros_arguments or [])

    def command(self, context: LaunchContext) -> list[str]:
        """Return executable and arguments, then --ros-args with name, namespace, parameter files and remappings."""
        words = [
            *super().command(context),
            "--ros-args",
            *(perform(context, word) for word in self.ros_arguments),
        ]
        name = None if self.node_name is None else perform(context, self.node_name)
        if name is not None:
            words += ["-r", f"__node:={name}"]
        namespace = self._namespace(context)
        if namespace:
            words += ["-r", f"__ns:={namespace}"]
        target = f"{namespace or ''}/{name}" if name is not None and namespace else "/**"
        for entry in self.parameters:
            words += ["--params-file", self._parameter_file(context, entry, target)]
        for source, destination in self.remappings:
            words += ["-r", f"{perform(context, source)}:={perform(context, destination)}"]
        return words

    def _namespace(self, context: LaunchContext) -> str | None:
        """Return the absolute namespace: pushed by PushRosNamespace, then the node's own."""
        base = context.launch_configurations.get("ros_namespace", "")
        own = "" if self.namespace is None else perform(context, self.namespace)
        joined = (
            own
            if own.startswith("/")
            else "/".join(part.strip("/") for part in (base, own) if part.strip("/"))
        )
        return "/" + joined.strip("/") if joined or own else None

    def _parameter_file(self, context: LaunchContext, entry: Any, target: str) -> str:
        """Return the path of a YAML file with these parameters; a dict becomes a temporary file."""
        if isinstance(entry, ParameterFile):
            entry = entry.param_file
        if not isinstance(entry, Mapping):
            path = Path(perform(context, entry))
            if not path.is_file():
                raise FileNotFoundError(f"got the parameter file '{path}', expected a file")
            return str(path)
        values = {name: evaluate(context, name, value) for name, value in _flat(context, entry, "").items()}
        with tempfile.NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
            yaml.safe_dump({target: {"ros__parameters": values}}, file)
        return file.name


def _flat(context: LaunchContext, parameters: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """Return nested parameters with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        name = prefix + perform(context, key)
        flat.update(_flat(context, value, name + ".") if isinstance(value, Mapping) else {name: value})
    return flat


@strict_keywords
class PushRosNamespace(Action):
    """Put the nodes that follow in this group into a namespace."""

    def __init__(self, namespace: SomeSubstitutionsType, *, condition: Condition | None = None) -> None:
        super().__init__(condition=condition)
        self.namespace = namespace

    def execute(self, context: LaunchContext) -> None:
        """Append the namespace to the one pushed before; an absolute one replaces it."""
        base, own = context.launch_configurations.get("ros_namespace", ""), perform(context, self.namespace)
        context.launch_configurations["ros_namespace"] = own if own.startswith("/") else f"{base}/{own}"


__all__ = ["Node", "PushRosNamespace"]
__getattr__ = missing_names("launch_ros.actions", __all__)
