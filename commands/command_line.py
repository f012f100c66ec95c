"""The command line: options from arguments and environment, --help, and the page of all options.

python -m commands.command_line > docs/options.md
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from commands.options import BY_NAME, CHECK, CHOICES, LIVE, MODES, REPLAY, TRAIN, Mode, Option, options_of

PROGRAM = "find_anomalies.py"

# Options, each with its conditions in words.
_Rows = list[tuple[Option, list[str]]]


# --- the command line ----------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line: the usage of all options would fill a screen."""
        self.exit(2, f"{PROGRAM}: {message}\n")


def parse_options(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ
) -> tuple[Mode, argparse.Namespace]:
    """The mode, and a value for each of its options: from the arguments, the environment or the default.

    Ends the process as argparse does: with 0 after --help, with 2 and one line after wrong usage.
    """
    parser = _Parser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    for option in BY_NAME.values():
        option.add_to(parser)
    parser.add_argument("-h", "--help", action="store_true")
    known, unknown = parser.parse_known_args(arguments)
    given = vars(known)
    try:
        if given.pop("help"):
            is_chosen = "mode" in given or given.get("check_thresholds")
            print(format_help(_choose_mode(given, {}) if is_chosen else None), end="")
            parser.exit()
        if unknown:
            words = " ".join(unknown)
            raise argparse.ArgumentError(None, f"unrecognized arguments: {words}; --help shows all options")
        mode = _choose_mode(given, environment)
        return mode, argparse.Namespace(**_find_values(mode, given, environment))
    except argparse.ArgumentError as error:
        parser.error(str(error))


def _choose_mode(given: Mapping[str, Any], environment: Mapping[str, str]) -> Mode:
    """The mode named on the command line, else in the environment. Raises argparse.ArgumentError."""

    def value(name: str) -> Any:
        return given[name] if name in given else BY_NAME[name].find_value(environment)

    if given.get("check_thresholds") and "mode" in given:
        raise argparse.ArgumentError(None, "--check_thresholds needs no --mode; leave one of them out")
    if "mode" not in given and value("check_thresholds"):
        if given.get("target") == "ports":
            raise argparse.ArgumentError(
                None, "--target ports has no --check_thresholds and no thresholds file"
            )
        return CHECK
    target, name = value("target"), value("mode")
    if name is None:
        raise argparse.ArgumentError(None, "--mode is needed: train, test, collect, describe or answer")
    if target == "ports" and name in ("collect", "describe"):
        raise argparse.ArgumentError(
            None, f"--target ports has no --mode {name}; its --mode train reads the samples directly"
        )
    if (target, name) == ("edge", "test"):
        return REPLAY if value("replay") else LIVE
    return next(mode for mode in MODES if (mode.target, mode.name) == (target, name))


def _find_values(mode: Mode, given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """A value for each option of the mode. Raises argparse.ArgumentError for an option that does nothing."""
    rows = {option.name: option for option in options_of(mode)}
    for name in given:
        if name not in rows and BY_NAME[name] not in CHOICES:
            *others, last = [one.words for one in MODES if any(o.name == name for o in options_of(one))]
            served = f"{', '.join(others)} and {last}" if others else last
            raise argparse.ArgumentError(None, f"--{name} does nothing in {mode.words}; it serves {served}")
    values = {
        name: given[name] if name in given else option.find_value(environment)
        for name, option in rows.items()
    }
    for name, option in rows.items():
        # What the environment says does not count where it does nothing.
        is_idle = name not in given and not all(_holds(one, values) for one in option.needed)
        if option.follows and (values[name] is None or is_idle):
            other, defaults = option.follows
            values[name] = defaults[values[other]]
    for name, option in rows.items():
        if name not in given:
            continue
        for one in option.needed:
            if not _holds(one, values):
                raise argparse.ArgumentError(
                    None, f"--{name} does nothing without --{one}; give both or neither"
                )
        for one in option.excluding:
            if _holds(one, values):
                raise argparse.ArgumentError(
                    None, f"--{name} does nothing with --{one}; leave one of them out"
                )
    return values


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    """Whether an option is given, or has the value that the condition names."""
    name, _, wanted = condition.partition(" ")
    return values.get(name) == wanted if wanted else bool(values.get(name))


# --- help and docs -------------------------------------------------------------------------------

_DOES = "Find anomalies in the metrics of a 5G edge node, and in the traffic of the ports of network devices."
_ENVIRONMENT = (
    "Every option can also be set in the environment: options of InfluxDB by their names in capitals"
    " (INFLUX_PASS), all others with the prefix FIND_ANOMALIES_ (FIND_ANOMALIES_NODE_FILE). The command line"
    " has priority. A variable that does nothing in the chosen mode is ignored."
)
_EXIT_CODES = "0: done; 1: an error, and one line on standard error says how to fix it; 2: wrong usage"


def format_help(mode: Mode | None = None) -> str:
    """The text of --help: the options of a mode, or a list of all modes."""
    return _mode_help(mode) if mode else _overview()


def _help_parser(words: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        usage=f"{PROGRAM} {words} [options]",
        description=description,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )


def _overview() -> str:
    parser = _help_parser("[--target TARGET] --mode MODE", _DOES)
    for mode in MODES:
        parser.add_argument_group(mode.does, f"python {PROGRAM} {mode.example}")
    parser.add_argument_group("Show the options of one of these", f"python {PROGRAM} {TRAIN.words} --help")
    section = parser.add_argument_group("choosing the mode")
    for option in CHOICES:
        option.add_to(section, _describe(option, []))
    parser.add_argument_group("environment", _ENVIRONMENT)
    parser.add_argument_group("exit codes", _EXIT_CODES)
    return parser.format_help()


def _mode_help(mode: Mode) -> str:
    parser = _help_parser(mode.words, f"{mode.does}.")
    parser.add_argument_group("example", f"python {PROGRAM} {mode.example}")
    for title, rows in _sections(mode):
        _add_section(parser, title, rows)
    if mode is LIVE:
        # Help for --mode test also shows how to test recorded datasets.
        names = {option.name for option in options_of(LIVE)}
        for title, rows in _sections(REPLAY):
            _add_section(parser, title, [row for row in rows if row[0].name not in names])
        parser.epilog = f"{PROGRAM} {REPLAY.words} CSV --help shows all options for a recorded dataset."
    return parser.format_help()


def _add_section(parser: argparse.ArgumentParser, title: str, rows: _Rows) -> None:
    section = parser.add_argument_group(title)
    for option, conditions in rows:
        option.add_to(section, _describe(option, conditions))


def _sections(mode: Mode) -> list[tuple[str, _Rows]]:
    """The groups of options, each with a title that includes the conditions shared by all its options."""
    groups: dict[str, _Rows] = {}
    for option in options_of(mode):
        groups.setdefault(option.group, []).append((option, option.conditions(mode)))
    sections = []
    for title, rows in groups.items():
        shared = set.intersection(*(set(conditions) for _, conditions in rows)) if len(rows) > 1 else set()
        rows = [(option, [one for one in conditions if one not in shared]) for option, conditions in rows]
        sections.append((f"{title} ({'; '.join(sorted(shared))})" if shared else title, rows))
    return sections


def _describe(option: Option, conditions: list[str]) -> str:
    """The help text, followed by the default and the conditions in brackets."""
    default = [f"default: {option.shown_default}"] if option.shown_default else []
    notes = "; ".join(default + conditions)
    return f"{option.help} ({notes})" if notes else option.help


_DOCS_HEAD = f"""\
# Options

{_DOES}

`python {PROGRAM} --help` lists the modes, `python {PROGRAM} {TRAIN.words} --help` the options of one mode.
This page has the options of all modes. It is generated from the table in `commands/options.py`:
`python -m commands.command_line > docs/options.md`.

On the command line, an option that does nothing in the chosen mode is refused. Names cannot be shortened.
Times are seconds, or like 15s, 90m, 24h or 3d. `[true|false]` can be omitted, and is then true.

{_ENVIRONMENT}

Exit codes: {_EXIT_CODES}.

## Choosing the mode
"""


def format_docs() -> str:
    """The text of docs/options.md, the same on every machine."""
    lines = [_DOCS_HEAD, *_table([(option, []) for option in CHOICES])]
    for mode in MODES:
        lines += ["", f"## `{mode.words}`", "", f"{mode.does}.", ""]
        lines += ["```", f"python {PROGRAM} {mode.example}", "```"]
        for title, rows in _sections(mode):
            lines += ["", f"### {title[0].upper()}{title[1:]}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: _Rows) -> list[str]:
    lines = ["| option | default | environment | meaning |", "| --- | --- | --- | --- |"]
    for option, conditions in rows:
        value = f"[{option.metavar}]" if option.is_switch else option.metavar
        default = option.shown_default
        if default and not option.default_text:
            default = f"`{default}`"
        names = ", ".join(f"`{name}`" for name in option.environment)
        cells = (f"`--{option.name} {value}`", default, names, _escape("; ".join([option.help, *conditions])))
        # A bar would end the cell.
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _escape(text: str) -> str:
    """Escape <device>, which Markdown would take for an HTML tag."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    print(format_docs(), end="")
