"""Reads the project's own source for test_layout.py: modules, what they import, define and name."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "devices", "eventstore", "loadtest")


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module
    lines: int

    def at(self, node: ast.AST, what: str) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)} {what}"


@dataclass(frozen=True)
class Import:
    node: ast.stmt
    target: str  # `a.b` for `import a.b`; for `from a.b import c` also `a.b`, or `a.b.c` if that is a module
    lazy: bool  # inside a function, or only for the type checker


def _read(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    text = path.read_text()
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(text, str(path)), text.count("\n"))


@functools.cache
def modules() -> dict[str, Module]:
    found = (_read(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {module.name: module for module in found}


@functools.cache
def files_of_tests() -> tuple[Module, ...]:
    return tuple(_read(path) for path in sorted((ROOT / "tests").rglob("*.py")))


def _is_lazy_block(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, lazy
        yield from _statements(child, lazy or _is_lazy_block(child))


def _targets(module: Module, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    deeper = (f"{base}.{alias.name}" for alias in node.names)
    return [name if name in modules() else base for name in deeper]


@functools.cache
def nodes(module: Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(module.tree))


@functools.cache
def imports(module: Module) -> tuple[Import, ...]:
    return tuple(
        Import(node, target, lazy)
        for node, lazy in _statements(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in _targets(module, node)
    )


def under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def ours(name: str) -> bool:
    return under(name, PACKAGES)


def functions(module: Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    for node in nodes(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                assert node.body[0].end_lineno is not None
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node, lines


def defined_names(module: Module) -> Iterator[tuple[ast.AST, str]]:
    yield module.tree, module.name.rpartition(".")[2]
    for node in nodes(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield node, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node, name


def texts(module: Module) -> Iterator[str]:
    """Every string constant up to its first colon: a module that is started or loaded by name is named so."""
    for node in nodes(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.partition(":")[0]


def text_files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")
    for name in (*PACKAGES, "tests", "ops", ".ci"):
        found = (ROOT / name).rglob("*")
        yield from (path for path in found if path.is_file() and "__pycache__" not in path.parts)
