"""What a shop has today: Celery, SQLAlchemy models, requests with sessions."""

from datetime import UTC, datetime

import requests
from celery import Celery
from celery.signals import worker_process_init
from requests.adapters import HTTPAdapter
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.peers import provider, settings

settings.let_gevent_switch_while_postgresql_works()
app = Celery("usual")
app.conf.update(settings.CELERY)
engine = create_engine(settings.DATABASE, pool_size=50 if settings.GEVENT else 2, max_overflow=10)
http = requests.Session()
http.mount("http://", HTTPAdapter(pool_connections=4, pool_maxsize=settings.CALLS))
http.trust_env = False


@worker_process_init.connect
def fresh_connections(**_):
    engine.dispose(close=False)


class Base(DeclarativeBase):
    pass


class Tenant(Base):
    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    active: Mapped[bool]


class Integration(Base):
    __tablename__ = "integrations"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    base_url: Mapped[str]
    kod: Mapped[str]
    sifre: Mapped[str]
    enabled: Mapped[bool]


class Route(Base):
    __tablename__ = "routes"
    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    package_id: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str]
    provider_type: Mapped[str]
    primary_integration: Mapped[str]


class Mapping(Base):
    __tablename__ = "mappings"
    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    package_id: Mapped[str] = mapped_column(primary_key=True)
    integration_id: Mapped[str] = mapped_column(primary_key=True)
    oyun: Mapped[str]
    kupur: Mapped[str]


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    package_id: Mapped[str]
    quantity: Mapped[int]
    user_identifier: Mapped[str]
    status: Mapped[str]
    external_status: Mapped[str]
    integration_id: Mapped[str | None]
    provider_referans: Mapped[str | None]
    pin: Mapped[str | None]
    cost: Mapped[float | None]
    balance: Mapped[float | None]
    message: Mapped[str | None]
    checks: Mapped[int]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    last_sync_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class Note(Base):
    __tablename__ = "order_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    at: Mapped[datetime]
    text: Mapped[str]


def now():
    return datetime.now(UTC)


@app.task(bind=True, max_retries=None)
def dispatch(self, order_id, tenant_id):
    with Session(engine) as session:
        order = session.get(Order, order_id)
        if order.tenant_id != tenant_id or order.provider_referans:
            return
        tenant = session.get(Tenant, order.tenant_id)
        route = session.scalars(
            select(Route).where(Route.tenant_id == tenant.id, Route.package_id == order.package_id)
        ).one()
        if route.mode != "auto" or route.provider_type != "external":
            return
        mapping = session.scalars(
            select(Mapping).where(
                Mapping.tenant_id == tenant.id,
                Mapping.package_id == order.package_id,
                Mapping.integration_id == route.primary_integration,
            )
        ).one()
        integration = session.get(Integration, route.primary_integration)
        if not integration.enabled:
            return
        reference = provider.reference_of(order.id)
        wire = provider.placement(
            (integration.kod, integration.sifre), (mapping.oyun, mapping.kupur), reference, order.user_identifier
        )
        answer = http.get(f"{integration.base_url}/servis/pin_ekle.php", params=wire, timeout=20)
        bought = provider.read_placement(answer.text)
        order.provider_referans, order.integration_id, order.sent_at = reference, integration.id, now()
        if bought is None:
            order.status, order.external_status, order.message = "rejected", "failed", answer.text
        else:
            order.external_status, order.cost, order.balance = "sent", float(bought[0]), float(bought[1])
        session.add(Note(order_id=order.id, at=now(), text=f"sent to {integration.id}: {answer.text}"))
        session.commit()
    if bought is not None:
        check.apply_async((order_id,), countdown=settings.CHECK_AFTER_S)


@app.task(bind=True, max_retries=None)
def check(self, order_id):
    with Session(engine) as session:
        order = session.get(Order, order_id)
        if order.external_status in ("completed", "failed"):
            return
        integration = session.get(Integration, order.integration_id)
        wire = provider.question((integration.kod, integration.sifre), order.provider_referans)
        answer = http.get(f"{integration.base_url}/servis/pin_kontrol.php", params=wire, timeout=20)
        final, pin, message = provider.read_status(answer.text)
        order.checks += 1
        order.last_sync_at = now()
        if final is not None:
            order.status = "approved" if final == "completed" else "rejected"
            order.external_status, order.pin, order.message, order.completed_at = final, pin, message, now()
        session.commit()
    if final is None:
        raise self.retry(countdown=settings.CHECK_AFTER_S)
