"""Everything that is fuzzed: a name, inputs to begin with, words to build from, and what must hold for any bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.contract import test_providers_barakat as barakat_rows
from tests.contract import test_providers_znet as znet_rows
from tests.fuzz import answers, inputs


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` raises nothing, or something is wrong: an error that nobody handled, or an assertion that does not
    hold. Its result says what kind of thing happened; an input that brings a new result joins the corpus. ``share`` is
    this target's part of a run, in thousandths."""

    name: str
    check: Callable[[bytes], object]
    corpus: Callable[[], Sequence[bytes]]
    words: Sequence[str]
    share: int


_ZNET = partial(answers.corpus, znet_rows.PLACEMENTS, znet_rows.EDGES, znet_rows.STATUSES, znet_rows.BALANCES)
_ZDK = partial(answers.corpus, barakat_rows.PLACEMENTS, barakat_rows.EDGES, barakat_rows.STATUSES)

TARGETS = tuple(
    Target(*row)
    for row in (
        ("znet placement", answers.znet_placement, _ZNET, answers.WORDS, 120),
        ("znet status", answers.znet_status, _ZNET, answers.WORDS, 120),
        ("znet absence, balance, catalogue", answers.znet_absence, _ZNET, answers.WORDS, 30),
        ("barakat placement", answers.barakat_placement, _ZDK, answers.WORDS, 120),
        ("barakat status, balance, catalogue", answers.barakat_status, _ZDK, answers.WORDS, 90),
        ("amounts", answers.amounts, lambda: [b"1.234,56", b"-20 TL", b"1,234.5"], ["TL", ".", ",", "1", "23"], 150),
        ("events", inputs.event, inputs.event_corpus, inputs.EVENT_WORDS, 250),
        ("configuration", inputs.config, inputs.config_corpus, inputs.CONFIG_WORDS, 10),
        ("order files", inputs.order_file, inputs.file_corpus, inputs.FILE_WORDS, 30),
        ("delay line", inputs.delayed, inputs.delayed_corpus, inputs.DELAY_WORDS, 60),
        ("dead letters", inputs.letter, inputs.letter_corpus, inputs.DELAY_WORDS, 20),
    )
)
