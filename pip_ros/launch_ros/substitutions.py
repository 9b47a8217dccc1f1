"""In: the name of a ROS package. Out: where it is installed."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
    get_packages_with_prefixes,
)
from launch._refuse import missing_names, nearest, strict_keywords
from launch.action import LaunchContext, SomeSubstitutionsType, Substitution, describe, perform
from launch.substitutions import SubstitutionFailure


class PackageSubstitution(Substitution):
    """Base: a folder of an installed package."""

    def __init__(self, package: SomeSubstitutionsType) -> None:
        self.package = package

    def find(self, package: str) -> str:
        """Return the folder of the package with this name."""
        raise NotImplementedError(type(self).__name__)

    def perform(self, context: LaunchContext) -> str:
        """Return the package's folder. Raises: SubstitutionFailure naming the nearest package there is."""
        name = perform(context, self.package)
        try:
            return self.find(name)
        except (PackageNotFoundError, ValueError) as error:
            known = get_packages_with_prefixes()
            raise SubstitutionFailure(
                f"package '{name}' not found{nearest(name, known)}; is the workspace built and "
                "sourced (./run shell)?"
            ) from error

    def describe(self) -> str:
        """Return `FindPackageShare(pkg='name')`, or with the name of the subclass at hand."""
        return f"{type(self).__name__}(pkg={describe(self.package)})"


class FindPackageShare(PackageSubstitution):
    """The share folder of a package."""

    def find(self, package: str) -> str:
        """Return <prefix>/share/<package>. Raises: PackageNotFoundError."""
        return get_package_share_directory(package)


class FindPackagePrefix(PackageSubstitution):
    """The install prefix of a package."""

    def find(self, package: str) -> str:
        """Return the folder that the package was installed into. Raises: PackageNotFoundError."""
        return get_package_prefix(package)


@strict_keywords
class ExecutableInPackage(Substitution):
    """The path of an executable in lib/<package> of an installed package."""

    def __init__(self, executable: SomeSubstitutionsType, package: SomeSubstitutionsType) -> None:
        self.executable = executable
        self.package = package

    def perform(self, context: LaunchContext) -> str:
        """Return <prefix>/lib/<package>/<executable>. Raises: SubstitutionFailure where package or file is missing."""
        package, name = perform(context, self.package), perform(context, self.executable)
        return find_executable(package, FindPackagePrefix(package).perform(context), name)


def find_executable(package: str, prefix: str, name: str) -> str:
    """Return the path of the executable `name` of `package`; SubstitutionFailure names those there are."""
    folder = Path(prefix) / "lib" / package
    if not (folder / name).is_file():
        known = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
        raise SubstitutionFailure(
            f"executable '{name}' not found on the libexec directory '{folder}'"
            f"{nearest(name, known)}; there are: {', '.join(known) or 'none'}"
        )
    return str(folder / name)


__all__ = ["ExecutableInPackage", "FindPackagePrefix", "FindPackageShare"]
__getattr__ = missing_names("launch_ros.substitutions", __all__)
