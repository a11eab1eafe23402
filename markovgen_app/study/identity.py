"""Who is who, without knowing who anybody is: everything here is derived from the study's one secret key.

A rater holds a token; the study keeps an HMAC of it and nothing else. A withdrawal code is derived from that HMAC, and
the study again keeps only an HMAC of the code. An invitation is a number with a signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from ..errors import UserError

KEY_BYTES = 32
_TOKEN_BYTES = 16
_SIGNATURE_BYTES = 12
_CODE_LENGTH = 16
FORGED_TOKEN = "This rating session is not one of this study: open the study's link again."
FORGED_INVITATION = "This invitation is not one of this study: ask for a new link."


class Keys:
    """Everything derived from the study's secret.

    Args:
        secret: `KEY_BYTES` random bytes.

    Raises:
        ValueError: the secret is too short.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < KEY_BYTES:
            raise ValueError(f"the key has {len(secret)} bytes, not {KEY_BYTES}")
        self._secret = secret

    def derive(self, purpose: str, text: str = "") -> bytes:
        """32 bytes that only the key's holder can compute: HMAC-SHA256 of the purpose and the text."""
        return hmac.digest(self._secret, f"{purpose}\0{text}".encode(), hashlib.sha256)

    def new_token(self) -> str:
        """What a new rater's browser keeps."""
        return self._signed("token", _encoded(secrets.token_bytes(_TOKEN_BYTES)))

    def invited_token(self, invitation: str) -> str:
        """The token of whoever holds an invitation: the same on every device.

        Raises:
            UserError: the invitation is forged.
        """
        number = self._opened("invitation", invitation, FORGED_INVITATION)
        return self._signed("token", _encoded(self.derive("invited", number)[:_TOKEN_BYTES]))

    def invitation(self, number: int) -> str:
        """Invitation `number`, to be put into a link."""
        return self._signed("invitation", str(number))

    def rater(self, token: str) -> str:
        """The id under which a rater's votes are kept.

        Raises:
            UserError: the token is forged.
        """
        return self.derive("rater", self._opened("token", token, FORGED_TOKEN)).hex()[:24]

    def withdrawal_code(self, rater: str) -> str:
        """What a rater notes down to have everything deleted later: "K7QA-…", 80 bits."""
        code = base64.b32encode(self.derive("withdrawal", rater)).decode()[:_CODE_LENGTH]
        return "-".join(code[start : start + 4] for start in range(0, _CODE_LENGTH, 4))

    def withdrawal_hash(self, code: str) -> str:
        """What the study keeps of a withdrawal code, however it was typed."""
        plain = "".join(code.upper().replace("0", "O").replace("1", "I").replace("8", "B").split()).replace("-", "")
        return self.derive("withdrawal-hash", plain[: 2 * _CODE_LENGTH]).hex()

    def picture_name(self, prompt: str, method: str) -> str:
        """File name of a picture: tells nothing without the key."""
        return self.derive("picture", f"{prompt}\0{method}").hex()[:32] + ".png"

    def _signed(self, purpose: str, text: str) -> str:
        return f"{text}.{_encoded(self.derive(f'{purpose}-signature', text)[:_SIGNATURE_BYTES])}"

    def _opened(self, purpose: str, signed: str, otherwise: str) -> str:
        """The text of a signed one; UserError with the line `otherwise` where the signature is not ours."""
        text, _, _ = signed.partition(".")
        if not hmac.compare_digest(signed.encode(), self._signed(purpose, text).encode()):
            raise UserError(otherwise)
        return text


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
