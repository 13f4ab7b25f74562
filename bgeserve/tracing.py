"""OpenTelemetry spans of a request: nothing at all unless `start` was called in this process.

Knows the spans' names, and how a parent travels to another process (W3C traceparent). Where they go, and how many of them, the standard
OTEL_* variables say to OpenTelemetry's own SDK. No span holds a text: an error is its code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING

from bgeserve.caller import Caller
from bgeserve.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE = "bge-serve"

_tracer: Tracer | None = None


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """An endpoint is stated, or the exporter by name; and neither the SDK nor the exporter is switched off."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    is_off = exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not is_off and (exporter == "otlp" or any(environment.get(name) for name in SWITCHES))


def start(environment: Mapping[str, str], **resource: str) -> Callable[[], None]:
    """Once per process, which is described by `resource`; the answer sends what has not been sent yet, and ends it.

    Raises SettingsError without `bge-serve[tracing]`.
    """
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SettingsError("OTEL_* variables ask for traces, which needs: pip install 'bge-serve[tracing]'") from error
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE}
    provider = TracerProvider(resource=Resource.create({**named, **resource}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer(SERVICE)

    def stop() -> None:
        global _tracer
        _tracer = None
        provider.shutdown()

    return stop


class RequestSpan:
    """Of one HTTP request."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def ended(self, status: int, error: str) -> None:
        """error: the code that it was answered."""
        if self._span is not None:
            self._span.set_attribute("http.response.status_code", status)
            if status >= 500:
                _failed(self._span, error)


@contextmanager
def request(name: str, headers: Mapping[str, str], request_id: str) -> Generator[RequestSpan]:
    """The first span here of a request, below the caller's own where its headers name one."""
    if _tracer is None:
        yield RequestSpan(None)
        return
    from opentelemetry.trace import SpanKind

    attributes = {"http.request.method": name.partition(" ")[0], "http.route": name.partition(" ")[2], "bge_serve.request_id": request_id}
    with _tracer.start_as_current_span(
        name, _context(headers), SpanKind.SERVER, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        yield RequestSpan(span)


@contextmanager
def stage(name: str) -> Generator[None]:
    """A part of what is traced already; alone it would be a trace about nothing."""
    if _tracer is None or not _current().get_span_context().is_valid:
        yield
        return
    with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield
        except BaseException as error:
            _failed(span, getattr(error, "code", type(error).__name__))
            raise


def carried(caller: Caller) -> Caller:
    """The caller as it goes to another process: what is done for it there is below the span that is current here."""
    if _tracer is None or not _current().get_span_context().is_valid:
        return caller
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return replace(caller, traceparent=headers["traceparent"])


def record(caller: Caller, stages_s: Sequence[tuple[str, float]], **attributes: int) -> None:
    """Stages that have just ended, one after the other, below the span that the caller came with, or else the current one."""
    if _tracer is None or not (caller.traceparent or _current().get_span_context().is_valid):
        return
    parent = _context({"traceparent": caller.traceparent}) if caller.traceparent else None
    ends = time_ns() - int(1e9 * sum(seconds for _, seconds in stages_s))
    for name, seconds in stages_s:
        began, ends = ends, ends + int(1e9 * seconds)
        _tracer.start_span(name, parent, attributes=attributes, start_time=began).end(ends)


def _context(headers: Mapping[str, str]) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({name: headers[name] for name in ("traceparent", "tracestate") if name in headers})


def _current() -> Span:
    from opentelemetry.trace import get_current_span

    return get_current_span()


def _failed(span: Span, code: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)
