"""Language models behind an OpenAI-compatible endpoint, within a limit of requests, tokens and money."""

import hashlib
import http.client
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from mesocosm.models._checks import check_at_least, check_one_of
from mesocosm.models._transcript import Transcript
from mesocosm.models.language_model import Conversation, check_messages, check_sampling

__all__ = ["Endpoint"]

TokenField = Literal["max_tokens", "max_completion_tokens"]
LARGEST_REPLY = 2**24
LONGEST_WAIT = 300.0


class Endpoint:
    """A language model behind `base_url/chat/completions`, which completes conversations as a `LanguageModel` does.

    Every answer goes to the transcript, which is looked up first: nothing is asked twice, and an interrupted study goes
    on where it stopped. The limits count all that the transcript holds. Before each request its largest cost is added
    (a token for each byte of the request, and all of `max_tokens`), so a limit is not passed unless the provider adds
    text of its own to the prompts. Requests that may have been billed without an answer (time-outs, server errors)
    count in full. Time-outs, cut connections, malformed replies, status 408, 429 and 5xx are tried again, after a pause
    that doubles from half a second or that the server asks for; redirections are refused.

    Args:
        base_url: such as https://api.openai.com/v1.
        transcript: a file of JSON lines, made if absent; entries are keyed by model, messages, temperature, seed,
            max_tokens and stop, so it belongs to one provider.
        key_variable: the environment variable that holds the key; None for a server without keys. The key is neither
            kept nor written, and is struck out of replies.
        request_limit: attempts, failed ones included.
        token_limit: tokens in and out.
        spend_limit: in the currency of the prices.
        input_price: per million tokens.
        output_price: per million tokens.
        timeout_s: seconds for one attempt.
        retries: further attempts after the first.
        token_field: what this server calls the limit of tokens written.

    Raises:
        ValueError: for illegal arguments, an absent key or a damaged transcript.
        OSError: when another process holds the transcript.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        transcript: str | Path,
        key_variable: str | None = "OPENAI_API_KEY",
        request_limit: int = 1000,
        token_limit: int | None = None,
        spend_limit: float | None = None,
        input_price: float | None = None,
        output_price: float | None = None,
        timeout_s: float = 60.0,
        retries: int = 5,
        token_field: TokenField = "max_tokens",
    ) -> None:
        check_at_least(0, request_limit=request_limit, retries=retries, token_limit=token_limit or 0)
        check_one_of(TokenField, token_field=token_field)
        for name, number in {
            "spend_limit": spend_limit,
            "input_price": input_price,
            "output_price": output_price,
        }.items():
            if number is not None and not number >= 0:
                raise ValueError(f"{name}={number!r} is not legal: it must be a number, at least 0")
        if not 0 < timeout_s < 86400:
            raise ValueError(f"timeout_s={timeout_s!r} is not legal: it must be a number of seconds above 0")
        if spend_limit is not None and (input_price is None or output_price is None):
            raise ValueError(f"spend_limit={spend_limit} needs input_price and output_price per million tokens")
        self.key_variable = key_variable
        _check_url(base_url, bool(self._key()))
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.request_limit, self.token_limit, self.spend_limit = request_limit, token_limit, spend_limit
        self.input_price, self.output_price = input_price or 0.0, output_price or 0.0
        self.timeout_s, self.retries, self.token_field = timeout_s, retries, token_field
        self._transcript = Transcript(Path(transcript))

    @property
    def spent(self) -> float:
        """The cost of all that the transcript holds, in the currency of the prices."""
        return self._cost(self._transcript.tokens_in, self._transcript.tokens_out)

    def complete(
        self,
        conversations: Sequence[Conversation],
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """The assistant's next message in each conversation, asked one after the other; see `LanguageModel.generate`.

        Raises:
            ValueError: for illegal arguments.
            RuntimeError: when a request could pass a limit, is refused, or fails in all attempts.
        """
        check_sampling(len(conversations), max_tokens, stop, temperature, seeds)
        for messages in conversations:
            check_messages(messages)
        requests = []
        for i, messages in enumerate(conversations):
            request = {"model": self.model, "messages": list(messages), "temperature": float(temperature)}
            request |= {self.token_field: max_tokens} | ({"stop": list(stop)} if stop else {})
            request |= {"seed": seeds[i]} if seeds is not None and temperature > 0 else {}
            requests.append(request)
        return [self._answer(request, max_tokens) for request in requests]

    def close(self) -> None:
        """Let other processes have the transcript."""
        self._transcript.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, request: dict[str, Any], max_tokens: int) -> str:
        body = json.dumps(request, ensure_ascii=False, sort_keys=True).encode()
        key = hashlib.sha256(body).hexdigest()
        known = self._transcript.answers.get(key)
        if known is not None:
            return known
        attempt = 0
        while (text := self._attempt(attempt, request, body, key, max_tokens)) is None:
            attempt += 1
        return text

    def _attempt(self, attempt: int, request: dict[str, Any], body: bytes, key: str, max_tokens: int) -> str | None:
        """The answer, or None after the pause that another attempt needs."""
        most = len(body), max_tokens
        self._check_limits(*most)
        self._transcript.add("asked", key, *most, request=request)
        try:
            text, usage, facts = _parse(self._send(body))
        except (OSError, http.client.HTTPException, ValueError) as error:
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            reason = self._reason(error)
            free = (status is not None and status < 500) or _never_left(error)
            self._transcript.add("refused" if free else "lost", key, *((0, 0) if free else most), reason=reason)
            if status is not None and status < 500 and status not in (408, 429):
                raise RuntimeError(f"{self.url} refuses the request: {reason}") from None
            if attempt == self.retries:
                raise RuntimeError(f"{self.url} failed {attempt + 1} times, at last: {reason}") from None
            time.sleep(self._pause(attempt, error))
            return None
        spent = usage.get("prompt_tokens", most[0]), usage.get("completion_tokens", most[1])
        self._transcript.add("answered", key, *spent, text=text, **facts)
        return text

    def _send(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        headers = {"Content-Type": "application/json", "User-Agent": "mesocosm"}
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, body, headers)
        data = b""
        with urllib.request.build_opener(_NoRedirections).open(request, timeout=self.timeout_s) as response:
            while piece := response.read1(65536):
                data += piece
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole reply in {self.timeout_s:g} s")
                if len(data) > LARGEST_REPLY:
                    raise ValueError(f"the reply is longer than {LARGEST_REPLY} bytes")
        return self._without_key(data)

    def _check_limits(self, tokens_in: int, tokens_out: int) -> None:
        held, cost = self._transcript, self._cost(tokens_in, tokens_out)
        needs: dict[str, tuple[float, float, float | None]] = {
            "request_limit": (held.requests, 1, self.request_limit),
            "token_limit": (held.tokens_in + held.tokens_out, tokens_in + tokens_out, self.token_limit),
            "spend_limit": (self.spent, cost, self.spend_limit),
        }
        for name, (so_far, more, limit) in needs.items():
            if limit is not None and so_far + more > limit:
                raise RuntimeError(
                    f"{name}={limit} would be passed: {so_far:g} so far, and the next request may take {more:g}; the "
                    "transcript keeps all answers, and a higher limit goes on from there"
                )

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.input_price + tokens_out * self.output_price) / 1e6

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError(f"the environment variable {self.key_variable} must hold the key, in printable characters")
        return key

    def _without_key(self, data: bytes) -> bytes:
        key = self._key() or ""
        return data.replace(key.encode(), b"[key]") if len(key) >= 8 else data  # a dummy like EMPTY is no secret

    def _reason(self, error: Exception) -> str:
        if isinstance(error, urllib.error.HTTPError):
            said = self._without_key(error.read(4096)).decode(errors="replace")
            return f"status {error.code}: {' '.join(said.split())[:300]}"
        return f"{type(error).__name__}: {error}"[:300]

    def _pause(self, attempt: int, error: Exception) -> float:
        pause = max(0.5 * 2**attempt, _retry_after(error))
        if pause > LONGEST_WAIT:
            raise RuntimeError(
                f"{self.url} asks for a pause of {pause:.0f} s, more than {LONGEST_WAIT:.0f} s"
            ) from None
        return pause


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    """The key would go with them."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _parse(data: bytes) -> tuple[str, dict[str, int], dict[str, Any]]:
    """The text, the tokens in and out as far as they are told, and what else is worth a record."""
    try:
        reply = json.loads(data)
        choice = reply["choices"][0]
        text = choice["message"]["content"]
        told = reply.get("usage") or {}
        usage = {name: int(told[name]) for name in ("prompt_tokens", "completion_tokens") if told.get(name) is not None}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"malformed reply: {data[:100].decode(errors='replace')!r}") from error
    if text is not None and not isinstance(text, str):
        raise ValueError(f"malformed reply: the content is {type(text).__name__}")
    return text or "", usage, {"finish_reason": choice.get("finish_reason"), "answered_by": reply.get("model")}


def _never_left(error: Exception) -> bool:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, ConnectionRefusedError | socket.gaierror)


def _retry_after(error: Exception) -> float:
    said = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    try:
        return float(said) if said.strip().isdigit() else parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return 0.0


def _check_url(base_url: str, has_key: bool) -> None:
    parts = urlsplit(base_url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("base_url is not legal: it must be like https://api.openai.com/v1, without user or query")
    if has_key and parts.scheme == "http" and not local:
        raise ValueError(f"base_url={base_url!r} is not legal: a key goes by https, except to this machine")
