"""Loads definitions: the Python files of a folder, one definition each. A broken file does not affect the others."""

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
    """A field of a definition has an invalid value.

    Args:
        field: The field's name.
        what: What is wrong with its value.
        remedy: What to write instead.
    """

    def __init__(self, field: str, what: str, remedy: str, *, code: Code = Code.INVALID_DEFINITION) -> None:
        super().__init__(f"{field}: {what}", remedy, code=code)
        self.field = field


class Gone(Exception):
    """A definition file raises this to be ignored, for instance once the time that it was written for is over."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """The definitions of a folder.

    Attributes:
        valid: The definitions by name.
        broken: The error of each file without a usable definition.
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
        other: Modules of the package that are not definitions.
        folder: The folder of the files; by default the package itself.
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
                    f"{file} does not define {attribute!r}.",
                    f"Write {attribute} = {kind.__name__}(…), or move the file out of the folder.",
                    code=Code.DEFINITION_MISSING,
                )
            name: str = definition.name  # type: ignore[attr-defined]
            if name in files:
                raise UserError(
                    f"{file}: the name {name!r} is already taken by {files[name]}.",
                    "Rename one of them.",
                    code=Code.DEFINITION_EXISTS,
                )
            valid[name], files[name] = definition, file
        except Gone:
            continue
        except UserError as error:
            broken[file] = error
    return Found(valid, broken)


def get(found: Found[T], kind: str, name: str, options: str = "") -> T:
    """The definition of a name.

    Args:
        kind: ``dataset`` or ``stream``.
        options: Further options that ``./millrace new`` needs.

    Raises:
        UserError: No file defines the name, or the file is broken.
    """
    if name in found.valid:
        return found.valid[name]
    for file, error in found.broken.items():
        if Path(file).stem == name:
            raise error
    known = ", ".join(found.valid) or "none"
    remedy = f"Correct the name, or create it with ./millrace new {kind} {name}{options}."
    raise UserError(f"The {kind} {name!r} does not exist. Known: {known}.", remedy, code=Code.UNKNOWN_DEFINITION)


def _load(name: str, path: Path, file: str) -> ModuleType:
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # msgspec looks up the module by name when it resolves the types of a definition.
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
    if isinstance(error, UserError):
        return UserError(f"{file}: {error.what}", error.remedy, code=error.code)
    if isinstance(error, SyntaxError):
        return UserError(f"{file}, line {error.lineno}: {error.msg}.", "Fix the syntax.", code=Code.BROKEN_DEFINITION)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{file}, line {lines[-1]}" if lines else file
    message = str(error).rstrip(".")
    return UserError(
        f"{where} raised {type(error).__name__}: {message}.",
        "Fix the file, or move it out of the folder.",
        code=Code.BROKEN_DEFINITION,
    )
