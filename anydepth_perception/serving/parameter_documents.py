"""Prints the parameter table: as the YAML parameter file, and as the Markdown of the documentation."""

from __future__ import annotations

import argparse
import textwrap

from anydepth_perception.serving.parameters import Value
from anydepth_perception.serving.settings import DEFAULTS, TABLE


def to_markdown() -> str:
    """The parameter table of the documentation."""
    rows = ["| parameter | type | default | accepted | changes | meaning |", "|---|---|---|---|---|---|"]
    for name, info in TABLE.items():
        default = _yaml_value(DEFAULTS[name])
        changes = "live" if info.live else "unconfigured"
        accepted = info.kind.accepted.replace("'", "`")
        rows.append(
            f"| `{name}` | {info.kind.type_name} | `{default}` | {accepted} | {changes} | {info.description} |"
        )
    return "\n".join(rows) + "\n"


def to_yaml() -> str:
    """The parameter file with every parameter at its default and its meaning as a comment."""
    lines = ["# Parameters of the node `detector`, all at their default. Print it again with:"]
    lines += ["#   python -m anydepth_perception.serving.parameter_documents --yaml", "/**:", "  ros__parameters:"]
    for name, info in TABLE.items():
        changes = "Live." if info.live else "Read-only while the node is configured."
        comment = f"{info.description} Accepted: {info.kind.accepted}. {changes}"
        lines += [f"    # {part}" for part in textwrap.wrap(comment, 110)]
        lines.append(f"    {name}: {_yaml_value(DEFAULTS[name])}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        # A parameter file cannot hold an empty list, for want of a type.
        return "[" + ", ".join(map(str, value)) + "]" if value else '[""]'
    return f'"{value}"' if isinstance(value, str) else str(value)


def main() -> None:
    """Prints the table as Markdown or as the YAML parameter file."""
    parser = argparse.ArgumentParser(description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--markdown", action="store_true", help="the table of docs/node.md")
    form.add_argument("--yaml", action="store_true", help="the file config/detector.yaml")
    print(to_markdown() if parser.parse_args().markdown else to_yaml(), end="")


if __name__ == "__main__":
    main()
