"""The people who may log in: adds, changes, lists and shuts out accounts. `usage-pipeline users` runs it.

Runs in Superset's own environment: `python -m usage_superset.users add USERNAME ROLE`, with the password as the first
line of its input, never as an argument, which everybody on the machine could read. Works before and after set-up.
"""

import argparse
import os
import sys
from typing import Any

from flask_appbuilder.exceptions import PasswordComplexityValidationError

from usage_superset.bootstrap import SET_UP_NAME, migrate, say, write_base_roles
from usage_superset.roles import RolesError, roles


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["add", "remove", "list"])
    parser.add_argument("username", nargs="?", default="")
    parser.add_argument("role", nargs="?", default="")
    asked = parser.parse_args()
    os.umask(0o077)
    try:
        roles()
    except RolesError as error:
        return complain(str(error))
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        migrate(app)
        with app.test_request_context():
            write_base_roles(app)
            if asked.what == "list":
                return show()
            return (add if asked.what == "add" else remove)(asked.username, asked.role)


def complain(message: str) -> int:
    print(f"superset: {message}", file=sys.stderr)
    return 2


def add(name: str, role_name: str) -> int:
    """Adds an account, or gives one that is there its role and password anew."""
    from superset import security_manager
    from usage_superset.usage_security import is_long_enough

    offered = ["Admin", *(role for role, rights in roles().items() if rights)]
    if role_name not in offered:
        return complain(f"there is no role '{role_name}': choose one of {', '.join(offered)}")
    if name == SET_UP_NAME:
        return complain(f"{name} is the account that set-up acts as, and stays closed")
    password = sys.stdin.readline().rstrip("\n")
    try:
        is_long_enough(password)
    except PasswordComplexityValidationError as error:
        return complain(str(error))
    role = security_manager.find_role(role_name)
    user = security_manager.find_user(name)
    if user is None:
        user = security_manager.add_user(name, name, "", f"{name}@usage.invalid", role, password)
        if not user:
            return complain(f"{name} could not be added")
        say(f"{name} may log in as {role_name}")
        return 0
    user.roles, user.active = [role], True
    security_manager.update_user(user)
    security_manager.reset_password(user.id, password)
    say(f"{name} was there: now {role_name}, with the new password")
    return 0


def remove(name: str, _role: str) -> int:
    """Shuts an account out; what it made stays, since other people may use it."""
    from superset import security_manager

    user = security_manager.find_user(name)
    if user is None or name == SET_UP_NAME:
        return complain(f"there is no account '{name}'")
    user.roles, user.active = [], False
    security_manager.update_user(user)
    say(f"{name} may no longer log in")
    return 0


def show() -> int:
    from superset import security_manager

    people: list[Any] = sorted(security_manager.get_all_users(), key=lambda user: user.username)
    for user in people:
        if user.username != SET_UP_NAME:
            named = ", ".join(role.name for role in user.roles)
            say(f"{user.username:20} {named if user.is_active else 'may not log in'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
