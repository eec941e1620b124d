"""How the benchmark tells a peer where things are."""

import os

REDIS = os.environ.get("PEER_REDIS", "redis://127.0.0.1:6379/0")
DATABASE = os.environ.get("PEER_DATABASE", "")
CHECK_AFTER_S = float(os.environ.get("PEER_CHECK_AFTER_S", "1"))
CALLS = int(os.environ.get("PEER_CALLS", "200"))
GEVENT = os.environ.get("PEER_POOL") == "gevent"

CELERY = {
    "broker_url": REDIS,
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    "worker_hijack_root_logger": False,
    "worker_send_task_events": False,
    "broker_pool_limit": 20,
    "broker_transport_options": {"max_connections": CALLS + 100},  # its default of 10 loses tasks under gevent
    "broker_connection_retry_on_startup": True,
    "task_serializer": "json",
    "accept_content": ["json"],
}


def let_gevent_switch_while_postgresql_works():
    """psycopg2 blocks the whole process otherwise."""
    if not GEVENT:
        return
    import psycopg2
    from gevent.socket import wait_read, wait_write
    from psycopg2 import extensions

    def wait(connection, timeout=None):
        while True:
            state = connection.poll()
            if state == extensions.POLL_OK:
                return
            (wait_read if state == extensions.POLL_READ else wait_write)(connection.fileno(), timeout=timeout)

    psycopg2.extensions.set_wait_callback(wait)
