"""The shop of the Celery peers: writes its orders into the database, then starts one task for each.

Reads one JSON object from stdin and writes one to stdout; ``times`` names a file for the instants of the starts.
"""

import importlib
import json
import resource
import sys
import time
from datetime import UTC, datetime

import psycopg2
from psycopg2.extras import execute_values

from bench.peers import settings


def main():
    wish = json.load(sys.stdin)
    tasks = importlib.import_module(wish["module"])
    names = [f"{wish['prefix']}{number}" for number in range(wish["orders"])]
    with psycopg2.connect(settings.DATABASE.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        rows = [
            (name, "shop", "sixty", 1, f"5{number:09d}", "pending", "not_sent", 0, datetime.now(UTC))
            for number, name in enumerate(names)
        ]
        execute_values(
            cursor,
            "insert into orders (id, tenant_id, package_id, quantity, user_identifier, status,"
            " external_status, checks, created_at) values %s",
            rows,
            page_size=1000,
        )
    before, times = resource.getrusage(resource.RUSAGE_SELF), {}
    began, began_ns = time.monotonic(), time.time_ns()
    with tasks.app.producer_or_acquire() as producer:
        for number, name in enumerate(names):
            if wish["rate"] > 0 and (left := began + number / wish["rate"] - time.monotonic()) > 0:
                time.sleep(left)
            times[name] = time.time()
            tasks.dispatch.apply_async((name, "shop"), producer=producer)
    after = resource.getrusage(resource.RUSAGE_SELF)
    with open(wish["times"], "w", encoding="utf-8") as file:
        json.dump(times, file)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    json.dump(
        {"placed": len(names), "errors": [], "began_ns": began_ns, "ended_ns": time.time_ns(), "cpu_s": cpu_s},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
