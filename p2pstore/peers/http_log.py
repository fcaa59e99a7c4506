"""The logger that both HTTP servers give aiohttp: what a stranger does to us is a line, not a traceback."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

MAX_DETAIL = 120
"""Characters of what was wrong; aiohttp quotes what was sent."""


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        text = "a malformed request: " + ascii(error.message.partition("\n")[0])[:MAX_DETAIL]
    elif isinstance(error, ConnectionError):
        text = "a client went away before it was answered"
    else:
        return True
    record.msg, record.args, record.exc_info = text, (), None
    record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


http_log = logging.getLogger(__name__)
http_log.addFilter(_shorten)
