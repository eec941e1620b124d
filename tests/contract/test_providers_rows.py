"""No row of the protocol table is without a test."""

import re

from tests.contract import test_providers_barakat as barakat
from tests.contract import test_providers_znet as znet

ROWS = """
ZP01 ZP02 ZP03 ZP04 ZP05 ZP06 ZP07 ZP08 ZP09 ZP11 ZP13 ZP14 ZP15 ZP16 ZP17 ZP18 ZP20 ZP21 ZP22 ZP23 ZP24 ZP27 ZP28
ZP30 ZP31 ZP32 ZP33 ZP35 ZP36
ZS01 ZS02 ZS03 ZS04 ZS05 ZS06 ZS07 ZS08 ZS10 ZS11 ZS14 ZS16 ZS17 ZS18 ZS19 ZS21 ZS22 ZS23 ZS25 ZS27 ZS28
ZB01 ZB03 ZB04 ZB06 ZB07 ZB08 ZC01 ZC02 ZC03 ZC04 ZC06
KP01 KP02 KP03 KP04 KP05 KP06 KP08 KP10 KP11 KP12 KP13 KP14 KP16 KP17 KP18 KP19 KP21 KP23 KP24 KP25 KP26
KS01 KS02 KS03 KS04 KS07 KS08 KS10 KS11 KS13 KS16 KB01 KB02 KB04 KB05 KC01 KC02 KC03 KC05
""".split()


def _tested(module):
    tables = [value for value in vars(module).values() if isinstance(value, dict)]
    names = [name for table in tables for name in table if isinstance(name, str)]
    names += [name.upper() for name in vars(module) if name.startswith("test_")]
    return {row for name in names for row in re.findall(r"\b_?([ZK][PSBC]\d\d)(?=\b|_)", name.replace("_", " "))}


def test_every_row_of_the_protocol_table_has_a_test():
    assert set(ROWS) - _tested(znet) - _tested(barakat) == set()
