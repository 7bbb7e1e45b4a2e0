"""The roles of `roles.yaml`, and further ones of a company's own: their rights, and the accounts they are limited to.

Belongs here: reading and judging the files. Does not: giving rights to Superset's roles (`bootstrap.py`), nor what a
limit leaves of a table (`row_limits.py`).
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parents[1] / "roles.yaml"
# by what a role may be limited, each a column of the pages' tables
LIMITS = ("owner", "region", "segment")
# a right that does nothing but mark a role as limited, for a server that does not have the file that limits it
MARK = ("is_limited", "Accounts")
_KEYS = {"includes", "rights", "accounts"}

Rights = set[tuple[str, str]]
Limit = dict[str, tuple[str, ...]]


class RolesError(Exception):
    """A file of roles cannot be used; the message names the file, the role, and what to write instead."""


def roles() -> dict[str, Rights]:
    """(permission, view) of each role, with those of the roles that it includes. Raises RolesError."""
    written = _written()
    return {name: _rights_of(name, written) for name in written}


def _rights_of(name: str, written: dict[str, dict[str, Any]]) -> Rights:
    content = written[name]
    own = {(permission, view) for permission, view in content.get("rights", [])}
    mark = {MARK} if "accounts" in content else set()
    return own.union(mark, *(_rights_of(other, written) for other in content.get("includes", [])))


@cache
def limits() -> dict[str, Limit]:
    """The values of each column that a limited role is limited to, by role. Raises RolesError."""
    return {
        name: {column: tuple(values) for column, values in content["accounts"].items()}
        for name, content in _written().items()
        if "accounts" in content
    }


def _written() -> dict[str, dict[str, Any]]:
    """The roles of both files, judged."""
    ours = _read(ROLES)
    further = os.environ.get("USAGE_ROLES")
    if not further:
        return ours
    theirs = _read(Path(further))
    for name, content in theirs.items():
        problem = _problem_of(name, content, ours)
        if problem:
            raise RolesError(f"{further}: role '{name}': {problem}")
    return ours | theirs


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RolesError(f"{file} is not there: correct USAGE_ROLES, or leave it empty") from None
    except PermissionError:
        # what was made with a strict umask belongs to its maker alone
        raise RolesError(
            f"{file} may not be read by user {os.getuid()}: chmod a+r it and a+rx its folder, or give both to that user"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RolesError(f"{file} cannot be read: {error}") from error
    if not isinstance(read, dict) or not all(isinstance(content, dict) for content in read.values()):
        raise RolesError(
            f"{file} holds no roles: write `Role: {{includes: [Usage viewer], accounts: {{region: [...]}}}}`"
        )
    return {str(name): content for name, content in read.items()}


def _problem_of(name: str, content: dict[str, Any], ours: dict[str, dict[str, Any]]) -> str | None:
    """What is wrong with a role of the further file; such a role includes roles of ours and limits them."""
    if name in ours or name == "Admin":
        return "this role is there already, and stays as it is: choose another name"
    if unknown := sorted(set(content) - _KEYS):
        return f"unknown key {', '.join(map(str, unknown))}; there are includes, rights and accounts"
    if "rights" in content:
        return "take rights over by `includes`; further rights belong into superset/roles.yaml"
    includes = content.get("includes")
    if not isinstance(includes, list) or not includes:
        return "`includes` lists at least one of our roles, such as [Usage viewer]"
    if unknown := [other for other in includes if not ours.get(str(other))]:
        return f"includes {unknown[0]!r}; there are {', '.join(role for role in ours if ours[role])}"
    if "accounts" in content:
        return _problem_of_limit(content["accounts"])
    return None


def _problem_of_limit(limit: Any) -> str | None:
    if not isinstance(limit, dict) or not limit:
        return "`accounts` names at least one of owner, region and segment, each with a list"
    for column, values in limit.items():
        if column not in LIMITS:
            return f"accounts.{column} is none of {', '.join(LIMITS)}"
        if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
            return f"accounts.{column} is a list of names in quotation marks, as the pages show them"
        if template := next((v for v in values if "{{" in v or "{%" in v or "{#" in v), None):
            return f"accounts.{column}: {template!r} looks like a template, which is never filled in"
    return None
