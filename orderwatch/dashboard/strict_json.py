"""JSON bodies, read by the letter: Litestar itself would take 0 for false and "2" for 2."""

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ValidationException

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def _whole(value: Any) -> Any:
    """2.0 is the whole number 2 to JSON, and to the description of this API."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


class StrictRequest(Request[Any, Any, Any]):
    """Decodes a body right into the type that the handler asks for. Raises ``ValidationException`` naming the field."""

    async def json(self) -> Any:
        field = self.route_handler.parsed_data_field
        if field is None or not field.is_subclass_of(msgspec.Struct):
            return await super().json()
        try:
            return msgspec.convert(_whole(msgspec.json.decode(await self.body())), field.annotation)
        except msgspec.ValidationError as error:
            at = _PATH.search(str(error))
            key = f"data.{at['path']}" if at and at["path"] else "data"
            wrong = {"key": key, "message": _PATH.sub("", str(error)), "source": "body"}
            raise ValidationException("the body is not as it must be", extra=[wrong]) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValidationException(f"the body is not JSON in UTF-8 ({type(error).__name__})") from None
        except RecursionError:
            raise ValidationException("the body is nested too deeply") from None
