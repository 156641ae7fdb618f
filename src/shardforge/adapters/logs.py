"""system.log, query.log and error.log: one JSON object a line, by structlog over logging.

system.log also goes to standard error in a form for people. The level can be changed while running.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

import structlog

ROOT = "shardforge"
FILES = {"shardforge.query": "query.log", "shardforge.error": "error.log"}
_CHAIN: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(allow=["fields"]),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def _handler(path: Path) -> logging.Handler:
    handler = WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_CHAIN,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    return handler


def open_logs(folder: Path, level: str) -> list[logging.Handler]:
    """Start writing the three logs into `folder`; the handlers are for `close_logs`."""
    root = logging.getLogger(ROOT)
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers = [_handler(folder / "system.log"), console]
    for handler in handlers:
        root.addHandler(handler)
    for name, file in FILES.items():
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.INFO)
        handler = _handler(folder / file)
        logger.addHandler(handler)
        handlers.append(handler)
    set_level(level)
    return handlers


def set_level(level: str) -> None:
    """Change the level of system.log."""
    logging.getLogger(ROOT).setLevel(level.upper())


def close_logs(handlers: list[logging.Handler]) -> None:
    """Flush and close."""
    for name in (ROOT, *FILES):
        logger = logging.getLogger(name)
        for handler in handlers:
            logger.removeHandler(handler)
    for handler in handlers:
        handler.close()
