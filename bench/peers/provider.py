"""What every peer knows about the znet shop: parameters of its two requests, and how an answer is read."""

import hashlib


def reference_of(order_id):
    digest = hashlib.sha256(order_id.encode()).digest()
    return str(10**17 + int.from_bytes(digest[:8], "big") % (9 * 10**17))


def placement(access, mapping, reference, player):
    return {
        "kod": access[0],
        "sifre": access[1],
        "oyun": mapping[0],
        "kupur": mapping[1],
        "referans": reference,
        "oyuncu_bilgi": player,
    }


def question(access, reference):
    return {"tahsilat_api_islem_id": reference, "kod": access[0], "sifre": access[1]}


def read_placement(text):
    """(cost, balance), or None for a refusal."""
    parts = text.split("|")
    return (parts[1], parts[2]) if parts[0] == "OK" else None


def read_status(text):
    """(final external status or None, PIN, message)."""
    parts = text.split("|")
    if parts[0] != "OK":
        return None, None, text
    final = {"2": "completed", "3": "failed"}.get(parts[1])
    return final, parts[2].strip() or None, parts[3]
