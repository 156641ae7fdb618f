"""OpenTelemetry spans of statements, to an OTLP endpoint or to system.log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

log = logging.getLogger("shardforge.trace")

RecordStatement = Callable[[str, str, int, int], None]
"""(kind, statement text, start and end in nanoseconds since 1970)."""


class _LogExporter(SpanExporter):
    """Spans as lines of system.log."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            log.info("span", extra={"fields": json.loads(span.to_json())})
        return SpanExportResult.SUCCESS


def start_tracing(node_name: str, endpoint: str) -> tuple[RecordStatement, Callable[[], None]]:
    """A function that records a finished statement as a span, and one that flushes and stops."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": "shardforge", "service.instance.id": node_name})
    )
    if endpoint:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    else:
        provider.add_span_processor(SimpleSpanProcessor(_LogExporter()))
    tracer = provider.get_tracer("shardforge")

    def record(kind: str, statement: str, start_ns: int, end_ns: int) -> None:
        attributes = {
            "db.system.name": "shardforge",
            "db.operation.name": kind,
            "db.query.text": statement,
        }
        tracer.start_span(f"statement {kind}", start_time=start_ns, attributes=attributes).end(
            end_time=end_ns
        )

    return record, provider.shutdown
