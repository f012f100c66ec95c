"""The command that answers incidents: lists, writes and takes back answers."""

from __future__ import annotations

import argparse
import difflib
import getpass
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from common.alerts import NORMAL
from common.answers import (
    ATTACK,
    MAINTENANCE,
    Answer,
    LevelRange,
    answer_from_json,
    daily_around,
    load_answers,
    take_back,
    write_answers,
)
from common.files import UserError, shortened
from common.times import DAY_SECONDS, format_duration, format_time, parse_time
from common.units import describe_amount
from edge.answering import Hidden, hidden_by, pattern_of
from edge.poll_log import MOST_BYTES_OF_MANY, PollLog
from edge.quiet import NodeQuiet
from nodes.names import ALL_NODES
from nodes.series import RECORD_SECONDS
from service.answer_files import EDGE, PORTS
from service.idle_answers import with_nearest, without_match
from service.incident_log import IncidentLog

# How many incidents without an answer are listed, and how many ids a message names.
LISTED, NAMED_IDS = 20, 3
SECOND_NS = 10**9
# A longer maintenance may be a slip of the pen.
LONG_SECONDS = 31 * DAY_SECONDS

_NONE_KNOWN = {
    EDGE: "no incident has opened yet; check --state_dir",
    PORTS: "no incident has opened yet, or --state_dir is another; a job that reads --ports_dir keeps none",
}

Entries = Mapping[str, Mapping[str, Any]]


def run_answer(options: argparse.Namespace) -> None:
    """Run --mode answer."""
    _run(options, EDGE)


def run_ports_answer(options: argparse.Namespace) -> None:
    """Run --target ports --mode answer."""
    _run(options, PORTS)


def _run(options: argparse.Namespace, half: str) -> None:
    filename = options.answers_file
    answers = load_answers(filename, half)
    if options.take_back:
        kind = take_back(filename, options.incident, half).kind
        then = "its records can be learnt again" if kind == ATTACK else "what it kept quiet alerts again"
        print(f"{filename}: the answer to {options.incident} was taken back; {then}")
        return
    kinds = {NORMAL: options.normal, ATTACK: options.attack, MAINTENANCE: options.maintenance}
    kind = next((one for one, is_given in kinds.items() if is_given), None)
    log = IncidentLog(options.state_dir)
    entries = {name: one for name, one in log.read().items() if one.get("half") == half}
    if kind is None:
        if options.incident or options.until:
            raise UserError("say what it is: --normal, --attack or --maintenance; or --take_back the answer")
        _print_answers(filename, answers, entries)
        _print_unanswered(str(log.path), entries, answers)
        return
    if not options.incident:
        _write_maintenance(options, half)
        return
    entry = _incident(str(log.path), half, entries, options.incident)
    if kind == NORMAL:
        _write_normal(options, half, entry, entries)
        return
    given = _of_incident(options, half, kind, entry, entries)
    _put(options, half, {options.incident: given})
    until = f"from {given['from']} to {given['until']}"
    nodes = ", ".join(given["nodes"])
    does = "stays out of training" if kind == ATTACK else "is quiet and stays out of training"
    print(f"{filename}: {options.incident} is {kind}: {nodes} {does} {until}")
    if kind == ATTACK and not entry["ended"] and not options.until:
        print("it is still open: answer again when it has closed, or give --until")


def _incident(place: str, half: str, entries: Entries, name: str) -> Mapping[str, Any]:
    """The entry of an incident. Raises UserError with the ids that are nearest to a wrong one."""
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name, entries, NAMED_IDS) or [*entries][-NAMED_IDS:]
    known = f"did you mean {', '.join(near)}?" if near else _NONE_KNOWN[half]
    raise UserError(f"{place}: has no incident {shortened(name)}; {known}")


# --- what is written -----------------------------------------------------------------------------


def _said(half: str, kind: str, nodes: Sequence[str], start: int, end: int) -> dict[str, Any]:
    """What each answer has. start, end: ns."""
    return {
        "answer": kind,
        "half": half,
        "nodes": list(nodes),
        "from": format_time(start),
        "until": format_time(end),
        "by": getpass.getuser(),
        "at": format_time(time.time_ns() // SECOND_NS * SECOND_NS),
    }


def _nodes(half: str, entry: Mapping[str, Any], entries: Entries) -> list[str]:
    """The nodes, series or devices that an incident is of."""
    names = {str(entries[one]["node"]) for one in entry.get("members", ()) if one in entries}
    # An incident of many ports is that of their device, or of all.
    if half == EDGE and names:
        return sorted(names)
    return [str(entry["node"]) or "*"]


def _span(half: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    """Start and end of an incident, ns."""
    # What is wrong may have begun within the record before the first anomaly, and end within the next one.
    more = RECORD_SECONDS * SECOND_NS if half == EDGE else 0
    return int(parse_time(entry["began"]) - more), int(parse_time(entry["last"]) + more)


def _of_incident(
    options: argparse.Namespace, half: str, kind: str, entry: Mapping[str, Any], entries: Entries
) -> dict[str, Any]:
    """The answer that an incident is an attack or a maintenance."""
    start, end = _span(half, entry)
    if options.until:
        end = options.until * SECOND_NS
    elif kind == MAINTENANCE and not entry["ended"]:
        raise UserError("the incident is still open; give --until, the end of the maintenance")
    if end <= start:
        raise UserError(f"--until must be later than the incident began, {entry['began']}")
    return _said(half, kind, _nodes(half, entry, entries), start, end)


def _write_maintenance(options: argparse.Namespace, half: str) -> None:
    """Write a maintenance that belongs to no incident."""
    if not options.node:
        raise UserError(f"--maintenance needs --incident ID, or --node NAME ({ALL_NODES} for all)")
    if not options.until:
        raise UserError("--maintenance needs --until TIME, like 2h or 2023-01-31T22:00:00Z")
    now = time.time_ns() // SECOND_NS
    start = now - round(options.since or 0)
    if options.until <= max(start, now):
        raise UserError("--until is over already; give a time to come, like 2h or 2023-01-31T22:00:00Z")
    names = ["*" if name == ALL_NODES else name for name in options.node]
    _note_names(options, half, names)
    given = _said(half, MAINTENANCE, names, start * SECOND_NS, options.until * SECOND_NS)
    about = names[0] if len(names) == 1 and names[0] != "*" else MAINTENANCE
    name = f"{about}@{datetime.fromtimestamp(now, ZoneInfo('UTC')):%Y%m%dT%H%M%SZ}"
    _put(options, half, {name: given})
    print(
        f"{options.answers_file}: {', '.join(names)} is quiet until {given['until']}; anomalies are still"
        f" stored. --incident {name} --take_back ends it"
    )


def _note_names(options: argparse.Namespace, half: str, patterns: Sequence[str]) -> None:
    """Say which nodes, series or devices are not known; a new one may be right all the same."""
    known = {
        str(one["node"]) for one in IncidentLog(options.state_dir).read().values() if one["half"] == half
    }
    if half == PORTS:
        from ports.series import port_tags
        from ports.state import load_state

        known |= {series for series, _ in load_state(Path(options.state_dir) / "ports.json").judged}
        known |= {port_tags(one)["device"] for one in known if one}
    known -= {""}
    wrong = without_match(patterns, known) if known else [one for one in patterns if one != "*"]
    if wrong and not known:
        print(f"{options.state_dir} has no names yet, so that {', '.join(wrong)} cannot be checked")
    elif wrong:
        told = "; ".join(with_nearest("", one, known).strip() for one in wrong)
        print(f"{options.state_dir} does not know these names, which may be new or wrong: {told}")


def _write_normal(options: argparse.Namespace, half: str, entry: Mapping[str, Any], entries: Entries) -> None:
    """Show what else an answer would keep quiet, ask, and write it; for each node of an incident of many."""
    members = [entries[one] for one in entry.get("members", ()) if one in entries] if half == EDGE else []
    found: dict[str, dict[str, Any]] = {}
    for one in members or [entry]:
        start, end = _span(half, one)
        polls = PollLog(options.state_dir, MOST_BYTES_OF_MANY)
        verdicts = polls.verdicts(None, 0, str(one["node"])) if half == EDGE else []
        until = end if one["ended"] else time.time_ns()
        anomalies = [verdict for verdict in verdicts if verdict.is_loud and start <= verdict.time <= until]
        last = max((verdict.time for verdict in anomalies), default=end)
        metrics = pattern_of(one["metrics"], anomalies)
        if not metrics:
            raise UserError(f"{one['id']}: no level of it is known, so that it makes no pattern")
        daily = daily_around(start, max(end, last), options.timezone)
        given = _said(half, NORMAL, _nodes(half, one, entries), start, max(end, last + 1))
        answer = Answer(one["id"], NORMAL, (), start, end, metrics, daily, options.timezone)
        given |= {
            "metrics": {name: limits.to_json() for name, limits in metrics.items()},
            "daily": answer.hours,
            "timezone": options.timezone,
        }
        found[one["id"]] = given
        answer = answer_from_json(one["id"], given)
        _print_pattern(one, answer, hidden_by(NodeQuiet((answer,)), answer.zone, verdicts), entries)
    _put(options, half, found)
    print(f"{options.answers_file}: {', '.join(found)} is normal; --take_back takes the answer back")


def _put(options: argparse.Namespace, half: str, given: Entries) -> None:
    """Write answers; say what they replace, and ask before anything that a person might not expect."""
    earlier = {one.id: one for one in load_answers(options.answers_file, half) if one.id in given}
    for one in earlier.values():
        print(f"it replaces: {_told(one)}")
    entries = given.values()
    longest = max(parse_time(one["until"]) - parse_time(one["from"]) for one in entries) / SECOND_NS
    is_long = any(one["answer"] == MAINTENANCE for one in entries) and longest > LONG_SECONDS
    if is_long:
        print(f"it would be quiet for {longest / DAY_SECONDS:.3g} days")
    is_other = any(given[name]["answer"] != one.kind for name, one in earlier.items())
    if is_long or is_other or any(one["answer"] == NORMAL for one in entries):
        _confirm(options)

    def agree(now: Answer) -> None:
        # Another person may have answered meanwhile.
        if now == earlier.get(now.id):
            return
        if not options.yes:
            raise UserError(
                f"nothing was written, since {now.id} has another answer by now: {_told(now)}; answer again"
            )
        print(f"it replaces: {_told(now)}")

    write_answers(options.answers_file, given, agree)


def _told(answer: Answer) -> str:
    """Such as `normal by ana at 2026-03-06T12:40:00Z`."""
    return f"{answer.kind} {answer.said_by}".rstrip()


def _confirm(options: argparse.Namespace) -> None:
    """Ask a person at a terminal. Raises UserError if nobody agrees."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nothing was written, since there is no terminal to ask on; give --yes")
    print("Write this answer? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was written")


# --- what is shown -------------------------------------------------------------------------------


def _print_pattern(entry: Mapping[str, Any], answer: Answer, hidden: Hidden, entries: Entries) -> None:
    """Print what an answer keeps quiet from now on, and what it would have kept quiet."""
    print(f"{answer.id}: {entry['why']}")
    print(f"normal keeps quiet, on {_nodes_told(answer.nodes)} each day at {answer.hours} ({answer.zone}):")
    units = {name: str(metric["unit"]) for name, metric in entry["metrics"].items()}
    for name, limits in answer.metrics.items():
        low, high = (describe_amount(units[name], end) for end in (limits.low, limits.high))
        print(f"  {name} from {low} to {high}")
    start, end = answer.daily
    loads = (
        _largest(name, units[name], limits, 60 * (end - start)) for name, limits in answer.metrics.items()
    )
    print(f"the largest load that could hide in it: {', '.join(loads)}")
    since = f", from {format_time(hidden.first)} to {format_time(hidden.last)}" if hidden.anomalies else ""
    print(
        f"it would have kept quiet {hidden.anomalies} known anomalies, {hidden.alerts} of them alerts{since}"
    )
    others = [one["id"] for one in entries.values() if one["id"] != answer.id and _would_hide(answer, one)]
    if others:
        print(f"it would also have kept quiet the incidents {', '.join(others)}")


def _nodes_told(nodes: Sequence[str]) -> str:
    """The only node has no name."""
    return "the node" if tuple(nodes) == ("*",) else ", ".join(nodes)


def _largest(name: str, unit: str, limits: LevelRange, seconds: float) -> str:
    """The largest load that can last so long."""
    high = limits.lasting.high if limits.lasting else limits.high
    if unit == "%" and high >= 100:
        return f"any load of {name}"
    amount = f"{name} up to {describe_amount(unit, high)} for {format_duration(seconds)}"
    if unit == "B/s":
        return f"{amount} ({describe_amount('B', high * min(seconds, DAY_SECONDS))} a day)"
    return amount


def _would_hide(answer: Answer, entry: Mapping[str, Any]) -> bool:
    """Whether an answer would have kept a whole incident quiet, as far as its entry tells."""
    metrics = entry["metrics"]
    return (
        bool(metrics)
        and answer.concerns(str(entry["node"]))
        and all(answer.is_at(parse_time(entry[key]), answer.zone) for key in ("began", "last"))
        and all(
            name in answer.metrics
            and all(answer.metrics[name].holds(metric[end]) for end in ("lowest", "highest"))
            for name, metric in metrics.items()
            if None not in (metric["lowest"], metric["highest"])
        )
    )


def _unit(name: str, answer: Answer, entries: Entries) -> str:
    """The unit of a metric: that in the entry of the incident, or in any other; empty if none is known."""
    known = [one["metrics"][name] for one in entries.values() if name in one["metrics"]]
    own = entries.get(answer.id, {}).get("metrics", {}).get(name)
    return str((own or (known[-1] if known else {})).get("unit", ""))


def _print_answers(filename: str, answers: Sequence[Answer], entries: Entries) -> None:
    print(f"{filename}: {len(answers) or 'no'} answer{'s' * (len(answers) != 1)}")
    for answer in answers:
        if answer.kind == NORMAL:
            what = ", ".join(
                f"{name} {describe_amount(unit, limits.low)} to {describe_amount(unit, limits.high)}"
                for name, limits in answer.metrics.items()
                for unit in (_unit(name, answer, entries),)
            )
            what = f"{what}, daily {answer.hours} {answer.zone}".rstrip()
        else:
            what = f"from {format_time(answer.start)} to {format_time(answer.end)}"
        who = f" ({answer.said_by})" if answer.said_by else ""
        print(f"  {answer.id}: {answer.kind}: {', '.join(answer.nodes)}: {what}{who}")


def _print_unanswered(place: str, entries: Entries, answers: Sequence[Answer]) -> None:
    answered = {answer.id for answer in answers}
    # Those of an incident of many nodes are answered with it.
    answered |= {
        name for name, one in entries.items() if (own := one.get("members")) and answered.issuperset(own)
    }
    left = [one for name, one in entries.items() if name not in answered]
    print(f"{place}: {len(left) or 'no'} incident{'s' * (len(left) != 1)} without an answer")
    for one in reversed(left[-LISTED:]):
        state = f"ended {one['ended']}" if one["ended"] else "is open"
        print(f"  {one['id']}: {state}: {one['why']}")
    if len(left) > LISTED:
        print(f"  and {len(left) - LISTED} older ones")
