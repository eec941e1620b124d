"""OpenTelemetry traces of an order's way, carried in the events' ``traceparent`` header. Off unless started.

While they are off, ``tracer`` is None, and every call site asks only that. Spans carry ids and outcomes: nothing of a
customer, no text of a provider, no exception's words.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from streams.config.loader import TelemetryConfig

HEADER = "traceparent"

#: None while traces are off.
tracer: Tracer | None = None

_provider: "TracerProvider | None" = None
_propagator = TraceContextTextMapPropagator()
_EXPORT_TIMEOUT_S = 5.0
_FLUSH_MS = 5000

Headers = Iterable[tuple[str, bytes | None]]


class Arrived(NamedTuple):
    """A record that was read, as far as a span tells of it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Headers | None


def start(telemetry: "TelemetryConfig", service: str, version: str) -> None:
    """Send spans to the collector, if one is configured; one that is away costs spans, never orders."""
    if not telemetry.otlp_endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    global _provider
    resource = Resource.create({"service.name": service, "service.version": version})
    _provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(telemetry.sample)))
    exporter = OTLPSpanExporter(
        f"{telemetry.otlp_endpoint.rstrip('/')}/v1/traces",
        timeout=_EXPORT_TIMEOUT_S,
        headers={name: value.get_secret_value() for name, value in telemetry.otlp_headers.items()},
    )
    _provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    use(_provider)


def use(provider: trace.TracerProvider) -> None:
    """Record spans with a provider of your own: for shops and downstream services that have one."""
    global tracer
    tracer = provider.get_tracer("orderwatch")


def stop() -> None:
    """Send what is left. Blocks for a few seconds at most."""
    global tracer, _provider
    tracer, provider, _provider = None, _provider, None
    if provider is not None:
        provider.force_flush(_FLUSH_MS)
        provider.shutdown()


def parent(headers: Headers | None) -> str | None:
    """The ``traceparent`` that a record carries."""
    for name, value in headers or ():
        if name == HEADER and value:
            return value.decode("ascii", "replace")
    return None


def header() -> tuple[str, bytes] | None:
    """The header that makes a record part of whatever runs now."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return (HEADER, carrier[HEADER].encode()) if HEADER in carrier else None


@contextmanager
def sending(topic: str, order_id: str, tenant_id: str, came_from: str | None = None) -> Iterator[None]:
    """A shop or a person sends an event: the first span of its trace, or a part of what runs here, or of the trace
    that a caller names in ``came_from``, a ``traceparent``. Here and below ``tracer`` must be set."""
    context = None if came_from is None else _propagator.extract({HEADER: came_from}, Context())
    with _span(
        f"{topic} send",
        SpanKind.PRODUCER,
        context,
        {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "orderwatch.order": order_id,
            "orderwatch.tenant": tenant_id,
        },
    ):
        yield


@contextmanager
def handling(name: str, records: Sequence[Arrived]) -> Iterator[None]:
    """``name`` handles these records, each in the trace that it carries or one of its own; the last one is current."""
    with ExitStack() as stack:
        for record in records:
            came_from = _propagator.extract({HEADER: parent(record.headers) or ""}, Context())
            stack.enter_context(
                _span(
                    f"{name} {record.topic}",
                    SpanKind.CONSUMER,
                    came_from,
                    {
                        "messaging.system": "kafka",
                        "messaging.destination.name": record.topic,
                        "messaging.destination.partition.id": str(record.partition),
                        "messaging.kafka.offset": record.offset,
                        "orderwatch.order": (record.key or b"").decode("utf-8", "replace")[:64],
                    },
                )
            )
        yield


@contextmanager
def calling(kind: str, integration_id: str, reference: str) -> Iterator[Span]:
    """One placement or question at a provider; the wait for its lane belongs to a question."""
    with _span(
        f"provider {kind}",
        SpanKind.CLIENT,
        None,
        {"orderwatch.integration": integration_id, "orderwatch.reference": reference},
    ) as span:
        yield span


@contextmanager
def _span(name: str, kind: SpanKind, context: Context | None, attributes: Mapping[str, str | int]) -> Iterator[Span]:
    assert tracer is not None
    with tracer.start_as_current_span(
        name, context, kind, dict(attributes), record_exception=False, set_status_on_exception=False
    ) as span:
        yield span


def current_id() -> str | None:
    """The trace id of whatever runs now, as 32 hexadecimal digits."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
