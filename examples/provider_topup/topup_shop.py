"""The server of the example provider, for the crash explorer: a reference buys once and is delivered 40 s later."""

import json

from agents.providers.base import Reply

WORKS_S = 40


class TopupShop:
    def __init__(self, now):
        self.now = now
        self.bought_at = {}

    async def fetch(self, method, path, *, query=None, headers=None, max_body=0):
        reference = path.removeprefix("/orders/")
        if method == "PUT":
            self.bought_at.setdefault(reference, self.now())
        if reference not in self.bought_at:
            return Reply(404, b'{"error": "unknown order"}')
        done = self.now() >= self.bought_at[reference] + WORKS_S
        body = {"id": reference[:8], "state": "done", "pin": "AAAA-BBBB"} if done else {"state": "queued"}
        return Reply(200, json.dumps(body).encode())

    def purchases(self):
        return list(self.bought_at)
