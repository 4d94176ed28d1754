"""Print the lowest versions that pyproject.toml admits, as requirements that pip installs.

``python tools/lowest.py test`` reads the installed lit_credit, with the named extras: ``make
test-oldest`` installs it without dependencies first. A requirement without a floor is an error:
nobody has tried its oldest version.
"""

import re
import sys
from importlib.metadata import requires

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?P<extras>\[[\w.,-]+\])?\s*(?P<bounds>[^;]*)"
    r"(;\s*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?$"
)


def lowest(requirements: list[str], extras: set[str]) -> list[str]:
    """The requirements with each floor as the version, of the package and of the named extras.

    Args:
        requirements: as in the metadata of a package: ``torch>=2.4``, ``ray>=2.10; extra ==
            'sweep'``, ``lit-credit[sweep]; extra == 'test'``.
        extras: names of extras, ``test``. Those that they name in turn are followed.

    Returns:
        ``torch==2.4`` and its like, in order, each once.

    Raises:
        ValueError: if a requirement has no floor, or has a marker other than an extra.
    """
    pins = dict[str, None]()
    for line in requirements:
        found = _REQUIREMENT.match(line.strip())
        if found is None:
            raise ValueError(f"{line!r} is not understood, expected `name>=version`.")
        if found["extra"] is not None and found["extra"] not in extras:
            continue
        if found["name"].replace("_", "-") == "lit-credit":
            named = set((found["extras"] or "[]")[1:-1].split(","))
            if not named <= extras:
                return lowest(requirements, extras | named)
            continue
        floor = re.search(r">=\s*([\w.]+)", found["bounds"])
        if floor is None:
            raise ValueError(f"{line!r} has no floor, expected `>=` and a version that was tried.")
        pins[f"{found['name']}{found['extras'] or ''}=={floor[1]}"] = None
    return list(pins)


if __name__ == "__main__":
    print("\n".join(lowest(requires("lit_credit") or [], set(sys.argv[1:]))))
