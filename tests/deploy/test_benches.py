"""The scripts of `make bench` and its kin run for minutes and by hand: a slip in one is to show before."""

import ast
from pathlib import Path

import pytest

SCRIPTS = {script.stem: ast.parse(script.read_text(), str(script))
           for script in (Path(__file__).resolve().parents[2] / "benches").glob("*.py")}


def names(module):
    """What a script defines or imports, anywhere in it."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_imports_what_is_there(script):
    for node in ast.walk(SCRIPTS[script]):
        if isinstance(node, ast.ImportFrom) and node.module in SCRIPTS:
            missing = {alias.name for alias in node.names} - set(names(SCRIPTS[node.module]))
            assert not missing, f"{node.module} has no {missing}"
