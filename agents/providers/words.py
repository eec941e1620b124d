"""The words of providers as data: what a text says about an order, whatever its case, marks or script.

Every table is a tuple of phrases in the form that ``plain`` gives a text: Turkish, English and Arabic. A row counts
when it occurs in the text. What no row matches is not known, and never proves that nothing was bought.
"""

import html
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from agents.providers.base import Placed, Refusal

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0]"
)
_BLANKS = re.compile(r"\s+")
#: Letters that have no decomposition, and Arabic letters that are written in two ways.
_LETTERS = str.maketrans({"ı": "i", "ß": "ss", "ø": "o", "ة": "ه", "ى": "ي", "ـ": "", "ک": "ك", "ی": "ي"})


def plain(text: str) -> str:
    """``text`` for comparison: entities resolved, compatibility forms and marks dropped, lower case, one blank."""
    text = html.unescape(html.unescape(text))
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKD", text.replace("İ", "i").replace("I", "i")))
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return _BLANKS.sub(" ", text.casefold().translate(_LETTERS)).strip()


#: Our reference exists there already.
DUPLICATE = (
    "daha once", "zaten", "mukerrer", "ayni referans", "referans kullanilmis", "kullanilmis", "islem mevcut",
    "siparis mevcut", "referans mevcut", "kayit mevcut", "tekrarlanan",
    "duplicate", "already", "same reference", "same uuid", "reference used", "reference exists", "uuid exists",
    "order exists",
    "مكرر", "مسبقا", "من قبل", "سبق ", "موجود بالفعل", "بالفعل",
)  # fmt: skip

#: The customer owns the goods: says nothing about our reference, where no word of an order stands beside it.
OWNED = (
    "daha once almis", "daha once satin almis", "zaten almis", "zaten sahip", "already own", "already purchased",
    "already bought", "already has", "already have", "يملك", "اشترى",
)  # fmt: skip
_ABOUT_ORDER = ("order", "siparis", "islem", "referans", "reference", "uuid", "talep", "طلب", "مرجع")

#: Too fast: nothing was done, and the same may be asked again after a while.
RATE_LIMIT = (
    "cok sik", "cok fazla istek", "cok fazla islem", "istek limiti", "istek siniri", "hiz siniri", "sn bekle",
    "saniye bekle", "dakika bekle", "lutfen bekle",
    "too many", "rate limit", "slow down", "too fast", "throttl", "request limit",
    "طلبات كثيره", "عدد الطلبات", "تجاوزت الحد", "تجاوز الحد",
)  # fmt: skip

#: The provider itself does not know what became of it.
UNSURE = (
    "bilinmeyen", "bilinmiyor", "zaman asimi", "beklenmeyen", "beklenmedik", "hata olustu", "sistem hatasi",
    "sistemsel hata",
    "sunucu", "veritabani", "baglanti", "yanit ver", "yanit alin", "cevap ver", "cevap alin", "durumunu kontrol",
    "isleminiz alindi",
    "isleme alindi", "devam ediyor", "devam etmekte", "isleniyor", "isleminiz bekle", "bekliyor", "beklemede",
    "bakimda", "bakim calis",
    "unknown", "internal", "timeout", "time out", "time-out", "timed out", "server error", "went wrong",
    "unexpected", "exception",
    "sqlstate", "mysql", "deadlock", "database", "connection", "gone away", "not answer", "no answer",
    "no response", "not respond",
    "processed", "processing", "in progress", "in process", "order created", "order received", "pending", "gateway",
    "maintenance", "service unavailable", "temporarily",
    "خطا غير متوقع", "حدث خطا", "خطا غير معروف", "غير معروف", "خطا في النظام", "خطا داخلي", "المهله",
    "قيد المعالجه", "قيد التنفيذ",
    "قيد الانتظار", "لم يستجب", "لم يرد", "قاعده البيانات", "الاتصال", "صيانه", "جاري",
)  # fmt: skip

#: The provider asks to come again: a clear cause beside it counts more.
LATER = (
    "tekrar deneyin",
    "tekrar deneyiniz",
    "yeniden deneyin",
    "daha sonra",
    "try again",
    "try later",
    "later",
    "حاول",
    "لاحقا",
)

#: Why nothing was bought. The package is also named where something else is the cause.
CAUSES: tuple[tuple[Refusal, tuple[str, ...]], ...] = (
    (Refusal.FUNDS, ("bakiye", "balance", "insufficient fund", "not enough fund", "no fund", "funds",
    "kredi yetersiz", "رصيد")),
    (
        Refusal.ACCESS,
        (
            "yetkiniz", "yetkisiz", "yetki yok", "yetki yetersiz", "api yetki", "kisitli ip", "ip kisit",
            "kullanici bilgileri",
            "ip not allowed", "ip address", "ip is not", "api token", "token error", "invalid token", "token is",
            "token not", "api key",
            "permission", "access denied", "unauthorized", "not authorized", "غير مصرح", "صلاحيه",
        ),
    ),
    (
        Refusal.STOCK,
        (
            "stok", "stog", "tukendi", "kalmadi", "stock", "not available", "unavailable", "sold out", "نفد", "نفدت",
            "غير متوفر", "المخزون",
        ),
    ),
    (
        Refusal.PLAYER,
        ("oyuncu", "hatali id", "gecersiz id", "id hatali", "player", "user id", "invalid id", "wrong id", "لاعب"),
    ),
    (Refusal.QUANTITY, ("quantity", "qty", "miktar", "adet", "كميه")),
    (Refusal.PACKAGE, ("kupur", "oyun bulun", "paket", "urun", "product", "package", "منتج", "الباقه")),
)  # fmt: skip

#: A question about our reference, answered with: there is none.
NOT_FOUND = (
    "bulunamadi", "bulunamamistir", "bulunmamaktadir", "bulunmuyor", "kayit yok", "islem yok", "siparis yok",
    "gecersiz referans",
    "tanimsiz referans", "not found", "no such", "does not exist", "no order", "no record", "invalid reference",
    "غير موجود", "لم يتم العثور", "لا يوجد طلب",
)  # fmt: skip
#: What was not found is not an order.
_NOT_AN_ORDER = (
    "kullanici", "bayi", "servis", "sayfa", "dosya", "yetki", "api", "user", "dealer", "service", "page", "file",
    "account", "token",
    "host", "route", "endpoint", "المستخدم", "الصفحه", "الخدمه", "الحساب",
)  # fmt: skip

#: Words that stand where a code belongs and are none, without blanks and punctuation.
NO_CODE = frozenset(
    {
        "null", "none", "nil", "nan", "na", "undefined", "false", "true", "empty", "pending", "wait", "waiting",
        "processing", "tbd",
        "notavailable", "nopin", "nocode", "novoucher", "ok", "success", "done", "completed", "unknown", "error",
        "pin", "code", "soon",
        "yok", "kodyok", "pinyok", "bos", "bekliyor", "bekleniyor", "beklemede", "bekleyiniz", "hazirlaniyor",
        "islemde", "isleniyor",
        "tamamlandi", "basarili", "onaylandi", "yakinda", "kod", "gonderilecek", "hazirdegil",
        "لايوجد", "فارغ", "قيدالانتظار", "قيدالمعالجه", "بدون", "غيرمتوفر", "انتظار", "جاري", "تم", "لاشيء",
    }
)  # fmt: skip


class Verdict(NamedTuple):
    """What an error text without a code says about a placement."""

    kind: Placed
    reason: Refusal | None = None
    listed: bool = True


def has(text: str, table: Iterable[str]) -> bool:
    """Whether one of the phrases occurs; ``text`` as ``plain`` gives it."""
    return any(phrase in text for phrase in table)


def says_duplicate(text: str) -> bool:
    """Whether a text (any form) says that our reference or order is there already."""
    words = plain(text)
    if has(words, OWNED) and not has(words, _ABOUT_ORDER):
        return False
    return has(words, DUPLICATE)


def refusal(text: str) -> Verdict:
    """The verdict of a provider's own error envelope, from its text alone.

    REJECTED with ``listed`` only where exactly one cause of the table is named. Two causes are OTHER.
    """
    words = plain(text)
    if says_duplicate(text):
        return Verdict(Placed.DUPLICATE)
    if has(words, RATE_LIMIT):
        return Verdict(Placed.RETRY_LATER)
    if has(words, UNSURE):
        return Verdict(Placed.AMBIGUOUS)
    causes = [cause for cause, table in CAUSES if has(words, table)]
    if len(causes) > 1 and Refusal.PACKAGE in causes:
        causes.remove(Refusal.PACKAGE)
    if has(words, LATER) and causes not in ([Refusal.FUNDS], [Refusal.STOCK]):
        return Verdict(Placed.AMBIGUOUS)
    if len(causes) == 1:
        return Verdict(Placed.REJECTED, causes[0])
    return Verdict(Placed.REJECTED, Refusal.OTHER, listed=False)


def says_not_found(text: str) -> bool:
    """Whether the answer to a question about our reference says that there is no such order, and nothing else."""
    words = plain(text)
    doubts = (*UNSURE, *LATER, *RATE_LIMIT, *_NOT_AN_ORDER)
    return has(words, NOT_FOUND) and not has(words, doubts)


def is_no_code(text: str) -> bool:
    """Whether a field for a code holds none: nothing visible, punctuation, zeros, or a word of the table."""
    letters = "".join(letter for letter in plain(text) if letter.isalnum())
    return not letters.strip("0") or letters in NO_CODE
