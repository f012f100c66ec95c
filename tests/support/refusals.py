"""What a refusal says."""

from __future__ import annotations

import re

import pytest

from common.files import UserError


def one_line(refusal: pytest.ExceptionInfo[UserError]) -> str:
    """The message of a refusal, which must fit on one line."""
    message = str(refusal.value)
    assert "\n" not in message
    return message


def refusal(text: str) -> str:
    """A pattern that matches this message alone."""
    return f"^{re.escape(text)}$"
