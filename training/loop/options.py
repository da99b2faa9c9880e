"""Options that commands which train or run networks share."""

from __future__ import annotations

import argparse


def add_device_option(parser: argparse.ArgumentParser, help_text: str = "(default: %(default)s)") -> None:
    """`--device`, as `join_processes` takes it."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=help_text)


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """`--set`, as often as wanted: overrides as `load_recipe` takes them."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a recipe's setting")
