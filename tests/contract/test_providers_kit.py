"""The conformance kit is run as a stranger would run it: on our adapters, on the example, and on a careless one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "examples" / "provider_topup"

CARELESS = """
from agents.providers.base import Placed, PlacedAnswer
from agents.providers.wire import unsent_or_unknown
from agents.providers.znet.adapter import Znet
from streams.errors import ProviderError

class Careless(Znet):
    def __init__(self, setup):
        super().__init__(setup)
        self.key = setup.credentials["kod"]

    async def place(self, reference, wire):
        for attempt in range(2):
            try:
                reply = await self._http.fetch("GET", "/", query={"kod": self.key, **wire})
            except ProviderError as error:
                failed = error
            else:
                return PlacedAnswer(Placed.ACCEPTED, message=f"for {self.key}")
        return unsent_or_unknown(failed)
"""


def kit(adapter: str, *arguments: str, cwd: Path, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-W",
        "error",
        "-p",
        "no:asyncio",
        "-q",
        "-rf",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        "-p",
        "agents.providers.testing.plugin",
        "--pyargs",
        "agents.providers.testing.conformance",
        "--provider",
        adapter,
        *arguments,
    ]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, (TOP, *path)))}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.parametrize(
    ("adapter", "accepted"),
    [
        ("agents.providers.znet.adapter:Znet", "OK|10.12|980.88"),
        (
            "agents.providers.zdk.adapter:Barakat",
            '{"status":"OK","data":{"order_id":"1","status":"accept","pin":"P-1"}}',
        ),
    ],
)
def test_our_adapters_keep_the_rules_of_the_kit(adapter, accepted, tmp_path):
    answer = tmp_path / "accepted"
    answer.write_text(accepted)
    done = kit(adapter, f"--provider-accepts={answer}", cwd=tmp_path)
    assert done.returncode == 0 and re.search(r"^\d+ passed in", done.stdout, re.M), done.stdout + done.stderr


def test_the_example_adapter_keeps_the_rules_of_the_kit(tmp_path):
    accepted = EXAMPLE / "accepted.json"
    done = kit("orderwatch_topup:Topup", f"--provider-accepts={accepted}", cwd=tmp_path, path=(EXAMPLE,))
    assert done.returncode == 0 and re.search(r"^\d+ passed in", done.stdout, re.M), done.stdout + done.stderr


def test_the_kit_finds_what_a_careless_adapter_does(tmp_path):
    (tmp_path / "careless.py").write_text(CARELESS)
    done = kit("careless:Careless", cwd=tmp_path, path=(tmp_path,))
    failed = set(re.findall(r"::(test_\w+\[[^\]]+\]|test_\w+)", done.stdout))
    assert done.returncode == 1
    placing = "test_a_placement_without_a_readable_answer_is_ambiguous_and_sent_once"
    assert {f"{placing}[{fault}]" for fault in ("hang-up", "silence", "page", "500", "truncated")} <= failed
    assert "test_nothing_leaves_after_the_lease" not in failed  # that much the client itself prevents


def test_the_kit_without_an_adapter_says_what_is_missing(tmp_path):
    done = kit("", cwd=tmp_path)
    assert done.returncode == 1
    assert "no adapter given" in done.stdout + done.stderr
