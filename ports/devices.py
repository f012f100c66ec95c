"""The file of devices: what is different for single ones, like their time zone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from common.files import UserError, loadDictJson
from common.public_holidays import parse_country
from ports.preparation import check_zone
from ports.series import port_tags

# Far more than any real file: a hundred thousand devices.
DEVICES_BYTES = 10_000_000


@dataclass(frozen=True)
class Device:
    """What is known of a device. timezone: of the people who use its ports. holidays: as in --holidays."""

    timezone: str | None = None
    holidays: str | None = None


def read_devices(path: str | Path) -> dict[str, Device]:
    """Read a JSON object: device -> an object with some of the keys `timezone` and `holidays`, both texts.

    Raises UserError, naming file, device and key, for anything else, and for a time zone or a country that
    does not exist.
    """
    return {
        name: _device(f"{path}: device {name!r}", given)
        for name, given in loadDictJson(path, DEVICES_BYTES).items()
    }


def _device(where: str, given: object) -> Device:
    keys = [field.name for field in fields(Device)]
    if not isinstance(given, dict):
        raise UserError(f'{where} must be an object like {{"timezone": "Europe/London"}}')
    for key, value in given.items():
        if key not in keys:
            raise UserError(f"{where}: there is no key {key!r}; use {' or '.join(keys)}")
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {key} must be a text")
    device = Device(**given)
    if device.timezone is not None:
        try:
            check_zone(device.timezone)
        except ValueError:
            raise UserError(
                f"{where}: {device.timezone!r} is not a time zone like Europe/Rome or UTC"
            ) from None
    if device.holidays is None:
        return device
    try:
        return replace(device, holidays=parse_country(device.holidays))
    except ValueError as error:
        raise UserError(f"{where}: holidays: {error}") from None


def unused_devices(devices: Mapping[str, Device], series: Iterable[str]) -> list[str]:
    """The devices that none of these series belongs to, in alphabetical order."""
    return sorted(set(devices) - {port_tags(name)["device"] for name in series}) if devices else []
