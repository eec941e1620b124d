"""The least one can write in Celery: one JOIN and one UPDATE in plain psycopg2, urllib3, apply_async for a retry."""

import threading
from urllib.parse import urlencode

import psycopg2
import urllib3
from celery import Celery
from celery.signals import worker_process_init

from bench.peers import provider, settings

settings.let_gevent_switch_while_postgresql_works()
app = Celery("lean")
app.conf.update(settings.CELERY)
http = urllib3.PoolManager(maxsize=settings.CALLS, retries=False)
free = []
lock = threading.Lock()

_ORDER = """
select i.kod, i.sifre, m.oyun, m.kupur, i.base_url, i.id, o.user_identifier from orders o
join routes r on r.tenant_id = o.tenant_id and r.package_id = o.package_id and r.mode = 'auto'
join integrations i on i.id = r.primary_integration and i.enabled
join mappings m on m.tenant_id = o.tenant_id and m.package_id = o.package_id and m.integration_id = i.id
where o.id = %s and o.tenant_id = %s and o.provider_referans is null"""
_SENT = """
update orders set provider_referans = %s, integration_id = %s, sent_at = clock_timestamp(), external_status = 'sent',
cost = %s, balance = %s where id = %s"""
_OPEN = """
select i.kod, i.sifre, i.base_url, o.provider_referans from orders o join integrations i on i.id = o.integration_id
where o.id = %s and o.external_status = 'sent'"""
_CHECKED = "update orders set checks = checks + 1, last_sync_at = clock_timestamp() where id = %s"
_ENDED = """
update orders set checks = checks + 1, last_sync_at = clock_timestamp(), completed_at = clock_timestamp(),
external_status = %s, status = %s, pin = %s, message = %s where id = %s"""


@worker_process_init.connect
def fresh_connections(**_):
    free.clear()


def sql(statement, values, fetch=False):
    """On a pooled connection in autocommit: one round trip."""
    with lock:
        connection = free.pop() if free else None
    if connection is None:
        connection = psycopg2.connect(settings.DATABASE.replace("+psycopg2", ""))
        connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(statement, values)
    row = cursor.fetchone() if fetch else None
    cursor.close()
    with lock:
        free.append(connection)
    return row


def get(url, fields):
    return http.request("GET", f"{url}?{urlencode(fields)}", timeout=20).data.decode()


@app.task
def dispatch(order_id, tenant_id):
    row = sql(_ORDER, (order_id, tenant_id), fetch=True)
    if row is None:
        return
    kod, sifre, oyun, kupur, base_url, integration, player = row
    reference = provider.reference_of(order_id)
    wire = provider.placement((kod, sifre), (oyun, kupur), reference, player)
    bought = provider.read_placement(get(f"{base_url}/servis/pin_ekle.php", wire))
    if bought is not None:
        sql(_SENT, (reference, integration, *bought, order_id))
        check.apply_async((order_id,), countdown=settings.CHECK_AFTER_S)


@app.task
def check(order_id):
    row = sql(_OPEN, (order_id,), fetch=True)
    if row is None:
        return
    kod, sifre, base_url, reference = row
    answer = get(f"{base_url}/servis/pin_kontrol.php", provider.question((kod, sifre), reference))
    final, pin, message = provider.read_status(answer)
    if final is None:
        sql(_CHECKED, (order_id,))
        check.apply_async((order_id,), countdown=settings.CHECK_AFTER_S)
    else:
        sql(_ENDED, (final, "approved" if final == "completed" else "rejected", pin, message, order_id))
