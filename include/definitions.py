"""Finding definitions: the Python files of a folder, each with one definition; a broken one harms only itself."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.project import ROOT

T = TypeVar("T")


class InvalidDefinition(NonRetryableError):
    """A definition says something that cannot be.

    Args:
        field: Which field of the definition is wrong.
        what: What is wrong with it.
        remedy: What to write instead.
    """

    def __init__(self, field: str, what: str, remedy: str, *, code: Code = Code.INVALID_DEFINITION) -> None:
        super().__init__(f"{field}: {what}", remedy, code=code)
        self.field = field


class Gone(Exception):
    """Raised by a definition's file that was written for a time, when that is over: as if the file were not there."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a folder holds.

    Attributes:
        valid: The definitions by their names.
        broken: For every file without a usable definition, what is wrong and how to fix it.
    """

    valid: dict[str, T]
    broken: dict[str, UserError]


def find(
    package: str, kind: type[T], attribute: str, *, other: Collection[str], folder: Path | None = None
) -> Found[T]:
    """Loads every definition file of a package's folder.

    Args:
        package: The package's dotted name, such as ``include.streams``.
        kind: The definitions' class; it has an attribute ``name``.
        attribute: The module's attribute that holds the definition, such as ``stream``.
        other: Modules of the package that are no definitions.
        folder: Where the files are, if not in the package itself.
    """
    folder = folder or ROOT.joinpath(*package.split("."))
    valid: dict[str, T] = {}
    broken: dict[str, UserError] = {}
    files: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        if path.stem in other or path.stem.startswith("_"):
            continue
        file = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
        try:
            definition = getattr(_load(f"{package}.{path.stem}", path, file), attribute, None)
            if not isinstance(definition, kind):
                raise UserError(
                    f"{file}: there is no {attribute!r} in it.",
                    f"Write {attribute} = {kind.__name__}(…) or delete it.",
                )
            name: str = definition.name  # type: ignore[attr-defined]
            if name in files:
                raise UserError(
                    f"{file}: the name {name!r} is taken by {files[name]}.", "Give one of them another name."
                )
            valid[name], files[name] = definition, file
        except Gone:
            continue
        except UserError as error:
            broken[file] = error
    return Found(valid, broken)


def get(found: Found[T], kind: str, name: str, options: str = "") -> T:
    """One of the definitions that were found.

    Args:
        kind: What it is, as ``./millrace new`` calls it.
        options: What else ``./millrace new`` needs to make one.

    Raises:
        UserError: There is none of that name, or its file is broken.
    """
    if name in found.valid:
        return found.valid[name]
    for file, error in found.broken.items():
        if Path(file).stem == name:
            raise error
    known = ", ".join(found.valid) or "none"
    remedy = f"Make it with ./millrace new {kind} {name}{options}."
    raise UserError(f"There is no {kind} {name!r}; there are: {known}.", remedy, code=Code.UNKNOWN_DEFINITION)


def _load(name: str, path: Path, file: str) -> ModuleType:
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The types of a definition are resolved in its module, by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # a file may even call exit()
        del sys.modules[name]
        if isinstance(error, Gone | KeyboardInterrupt):
            raise
        raise _explained(error, path, file) from error
    return module


def _explained(error: BaseException, path: Path, file: str) -> UserError:
    if isinstance(error, InvalidDefinition):
        return UserError(f"{file}: {error.what}", error.remedy, code=error.code)
    if isinstance(error, SyntaxError):
        return UserError(f"{file}, line {error.lineno}: {error.msg}.", "Fix the syntax.", code=Code.BROKEN_DEFINITION)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{file}, line {lines[-1]}" if lines else file
    message = str(error).rstrip(".")
    return UserError(
        f"{where}: {type(error).__name__}: {message}.",
        "Fix the file, or move it out of the folder.",
        code=Code.BROKEN_DEFINITION,
    )
