"""The configurations that come with the package."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path

from distail.errors import ConfigError, unknown_name


def list_configs() -> dict[str, str]:
    """Name of each configuration and its text.

    >>> "cifar100-lt-100-bkd" in list_configs()
    True
    """
    folder = package_files("distail") / "configs"
    texts = {
        entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    }
    return {name.removesuffix(".yaml"): texts[name] for name in sorted(texts)}


def describe_configs() -> dict[str, str]:
    """Name of each configuration and what its comment says it is."""
    described = {}
    for name, text in list_configs().items():
        comments = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
        described[name] = comments[1] if len(comments) > 1 else ""
    return described


def copy_config(name: str, destination: Path | None = None) -> Path:
    """Write a configuration where it can be edited and return the path.

    Raises:
        ConfigError: no such configuration, or the file exists already.
    """
    texts = list_configs()
    name = name.removesuffix(".yaml")
    if name not in texts:
        raise ConfigError(unknown_name("configuration", name, texts))
    path = destination or Path(f"{name}.yaml")
    if path.is_dir():
        path = path / f"{name}.yaml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(texts[name])
    except FileExistsError:
        raise ConfigError(f"{str(path)!r} exists already; choose another file") from None
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
    return path
