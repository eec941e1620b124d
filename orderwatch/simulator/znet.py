"""The znet shop: GET /servis/<service>.php, pipe-separated Turkish text, business errors with HTTP 200."""

from decimal import Decimal

import msgspec

from orderwatch.simulator.account import RELAPSED, Account
from orderwatch.simulator.faults import UNTRUE, Fault, FaultKind, Operation
from orderwatch.simulator.market import Market
from orderwatch.simulator.orders import Purchase
from orderwatch.simulator.scenario import ZnetAccount
from orderwatch.simulator.wire import NOT_EXECUTED, Answer, Asked, Call, buys_nothing, refuses
from orderwatch.simulator.znet_untrue import untrue

SERVICES: dict[str, Operation] = {
    "pin_ekle.php": "place",
    "pin_kontrol.php": "check",
    "bakiye_kontrol.php": "balance",
    "pin_listesi.php": "catalogue",
}
LOCKED = "8|Bağlantı Hatası,Kullanıcı Api Yetki, Kısıtlı Ip yada Kullanıcı Bilgileri Hatalı"
WORDS = {"pending": "1", "success": "2", "fail": "3", "reversed": "3"}
TEXTS = {"pending": "İşlem bekleniyor", "success": "İşlem tamamlandı", "fail": "İşlem iptal edildi", "reversed": ""}
REFERENCE_LIMIT = 50


def asked(call: Call) -> Asked | None:
    """The service a call means; None for a path that does not exist."""
    if len(call.parts) != 2 or call.parts[0] != "servis" or call.method != "GET":
        return None
    operation = SERVICES.get(call.parts[1])
    if operation == "place":
        return Asked("place", call.query.get("referans", ""))
    if operation == "check":
        return Asked("check", call.query.get("tahsilat_api_islem_id", ""))
    return None if operation is None else Asked(operation)


def goods(account: Account, ask: Asked, call: Call) -> list[tuple[str, str]]:
    """The (package, player) pairs a call is about."""
    if ask.operation == "place":
        package = account.pairs.get((call.query.get("oyun", ""), call.query.get("kupur", "")))
        return [(package.id if package else "", call.query.get("oyuncu_bilgi", ""))]
    return [(purchase.package.id, purchase.player) for purchase in account.orders.get(ask.reference, ())]


def answer(market: Market, account: Account, ask: Asked, call: Call, fault: Fault | None) -> Answer:
    """Do what the call asks, at once, and say so in the shop's words."""
    if locked(account, call, fault):
        return locked_answer(account, ask)
    if buys_nothing(fault) and ask.operation == "place":
        return refused(account, fault) if fault is not None and refuses(fault) else NOT_EXECUTED
    if ask.operation == "place":
        reply = place(market, account, call, fault)
    elif ask.operation == "check":
        reply = check(account, ask.reference, fault)
    elif ask.operation == "balance":
        reply = balance(account)
    else:
        reply = catalogue(account)
    if fault is None:
        return reply
    if refuses(fault):
        return refused(account, fault)
    return untrue(account, reply, fault, text) if fault.kind in UNTRUE else reply


def place(market: Market, account: Account, call: Call, fault: Fault | None) -> Answer:
    """pin_ekle.php."""
    query, switches = call.query, spec_of(account).switches
    reference, player = query.get("referans", ""), query.get("oyuncu_bilgi", "").strip()
    if not reference:
        return text(account, "", "empty")
    if len(reference) > REFERENCE_LIMIT:
        return text(account, "3|Referans Hatalı", "refused:3")
    package = account.pairs.get((query.get("oyun", ""), query.get("kupur", "")))
    if package is None:
        return text(account, "3|Kupur Bilgisi Bulunamadı", "refused:3")
    if not player:
        return text(account, "3|Oyuncu Bilgisi Eksik", "refused:3")
    if switches.phone_required and not query.get("musteri_tel"):
        return text(account, "3|Müşteri Telefonu Eksik", "refused:3")
    earlier = account.orders.get(reference)
    if earlier and switches.repeat != "accept-again":
        return repeated(account, earlier[0])
    if not package.available:
        return text(account, "3|Stok Bulunamadı", "refused:3")
    if package.price > account.spendable:
        return text(account, "3|Yetersiz Bakiye", "refused:3")
    return accepted(account, market.buy(account, reference, package, player, 1, fault), "accepted")


def repeated(account: Account, first: Purchase) -> Answer:
    """The answer to a reference that was bought under before."""
    repeat = spec_of(account).switches.repeat
    if repeat == "echo-first":
        return accepted(account, first, "repeat")
    if repeat == "ok-8":
        return text(account, "OK|8|Bu İşlem Daha Önce Gönderildi|0.00", "repeat")
    return text(account, f"4|Daha Önce Gönderilmiş ({first.number})", "repeat")


def accepted(account: Account, purchase: Purchase, label: str) -> Answer:
    """The same bytes whenever it is said of the same purchase."""
    return text(account, f"OK|{money(account, purchase.cost)}|{money(account, purchase.balance_after)}", label)


def check(account: Account, reference: str, fault: Fault | None) -> Answer:
    """pin_kontrol.php: one reference per call; of several executions the shop shows the first it can see."""
    switches = spec_of(account).switches
    if not reference:
        return text(account, "", "empty")
    visible = account.look_up(account.orders.get(reference, []), fault)
    if not visible:
        return text(account, "" if switches.unknown_reference == "empty" else "3|İşlem bulunamadı", "not_found")
    purchase, extra = visible[0]
    if extra is not None:
        extra = WORDS["pending"] if extra is RELAPSED else extra
        return text(account, f"OK|{extra}|{switches.no_pin}|{TEXTS['pending']}", f"found:{extra}")
    state = "pending" if fault is not None and fault.kind is FaultKind.STALE else purchase.state
    word = WORDS[state] if state == "pending" else purchase.life.final_word or WORDS[state]
    pin = (purchase.released_pins() if state == "success" else []) or [switches.no_pin]
    said = purchase.life.text if purchase.life.text is not None and state in ("success", "fail") else TEXTS[state]
    if state == "fail" and switches.reason_in_pin:
        return text(account, f"OK|{word}|{said}|", f"found:{state}")
    return text(account, f"OK|{word}|{pin[0]}|{said}", f"found:{state}")


def balance(account: Account) -> Answer:
    """bakiye_kontrol.php."""
    fields = ["OK", money(account, account.balance)]
    if account.spec.debt is not None:
        fields.append(money(account, account.spec.debt))
    return text(account, "|".join(fields), "balance")


def catalogue(account: Account) -> Answer:
    """pin_listesi.php: every value is a string."""
    rows = [
        {
            "id": row.id,
            "adi": row.name,
            "aciklama": row.aciklama,
            "oyun_id": row.oyun_id,
            "oyun_adi": row.oyun_adi,
            "fiyat": money(account, row.price),
            "kupur": row.kupur,
            "oyun_bilgi_id": row.oyun,
        }
        for row in spec_of(account).catalogue
    ]
    return Answer(msgspec.json.encode({"success": True, "result": rows, "error": None}), "catalogue")


def locked(account: Account, call: Call, fault: Fault | None) -> bool:
    """Whether the shop lets this caller in; the four reasons cannot be told apart from outside."""
    spec = spec_of(account)
    known = (call.query.get("kod"), call.query.get("sifre")) == (spec.credentials.kod, spec.credentials.sifre)
    shut = fault is not None and fault.kind is FaultKind.LOCK_OUT
    return shut or not (known and spec.permission and spec.ip_allowed)


def locked_answer(account: Account, ask: Asked) -> Answer:
    """Silence for the balance, a failed catalogue, one sentence for everything else."""
    if ask.operation == "catalogue":
        return Answer(b'{"success":false,"result":null,"error":"Yetki yok"}', "locked")
    silent = ask.operation == "balance" or spec_of(account).switches.locked_answer == "empty"
    return text(account, "" if silent else LOCKED, "locked")


def refused(account: Account, fault: Fault) -> Answer:
    """A refusal by order of a fault."""
    code = 3 if fault.code is None else fault.code
    return text(account, f"{code}|{'Yetersiz Bakiye' if fault.text is None else fault.text}", f"refused:{code}")


def text(account: Account, body: str, label: str) -> Answer:
    """A line of text in the shop's encoding, which it seldom declares."""
    switches = spec_of(account).switches
    declared = f"text/html; charset={switches.encoding}" if switches.declare_charset else "text/html"
    return Answer(body.encode(switches.encoding, "replace"), label, content_type=declared)


def money(account: Account, amount: Decimal) -> str:
    """Two decimals; with the comma switch also a dot between thousands."""
    if not spec_of(account).switches.comma_decimals:
        return f"{amount:.2f}"
    return f"{amount:,.2f}".translate(str.maketrans(",.", ".,"))


def spec_of(account: Account) -> ZnetAccount:
    """The account's settings, known to be a znet dealer's."""
    assert isinstance(account.spec, ZnetAccount)
    return account.spec
