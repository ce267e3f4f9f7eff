"""A client of any OpenAI-compatible endpoint: every request ends as a checked reply or as a counted failure.

Requests run side by side, are tried again with growing pauses, and each result is appended to a file at once,
so that a killed run goes on with nothing asked that was answered. A reply counts only if it is whole and says
that the model that was asked gave it; all else is a failure with a reason, never a text.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from medkit.errors import MedkitError, ModelError
from medkit.evaluation.endpoint_card import EndpointCard, is_near, secret_of
from medkit.evaluation.replies import Key, append_replies, read_replies
from medkit.progress import bar

LONGEST_WAIT_S = 60.0
AGAIN = frozenset({408, 409, 425, 429})
SETTINGS_ARE_WRONG = {
    401: "refuses the key",
    403: "refuses the key",
    404: "knows no such model or address",
}


@dataclass(frozen=True)
class Request:
    """One thing to ask.

    Attributes:
        key: Identity of the request within its file.
        prompt: What is asked, images as references; a stored reply counts for an equal prompt only.
        messages: Gives the messages as they are sent.
        most_tokens: Longest reply in tokens.
    """

    key: Key
    prompt: str
    messages: Callable[[], list[dict[str, Any]]]
    most_tokens: int


class Failure(Exception):
    """A try that gave no reply that counts; ``raw`` is the text that was rejected, where there was one."""

    def __init__(self, reason: str, again: bool, wait_s: float | None = None, raw: str | None = None):
        super().__init__(reason)
        self.reason, self.again, self.wait_s, self.raw = reason, again, wait_s, raw


def ask_all(
    endpoint: EndpointCard,
    requests: Sequence[Request],
    partial: Path,
    *,
    title: str = "questions",
    fault_of: Callable[[str, bool], str] | None = None,
) -> dict[Key, dict[str, Any]]:
    """Asks everything that has no reply yet and gives the replies by key.

    Args:
        endpoint: Who is asked.
        requests: What is asked; keys are unique.
        partial: Append-only JSONL of replies; those already there for the same prompt are not asked again.
        title: Of the progress bar.
        fault_of: Gives what is wrong with a reply's text (and whether it was cut), or "". Such a reply is
            tried again.

    Returns:
        Key to ``{benchmark, control, id, prompt, answer, truncated, latency_s, tries, served_by, rejected}``,
        and ``failed``, the last try's reason, where no try gave a reply that counts: then ``answer`` is empty.
        ``rejected`` are the texts of tries that did not count.

    Raises:
        ModelError: The endpoint refuses the key, has no such model, or fails time after time. What was
            answered stays in ``partial``.
    """
    wanted = {request.key: request.prompt for request in requests}
    replies = {key: reply for key, reply in read_replies(partial) if wanted.get(key) == reply["prompt"]}
    waiting = iter([request for request in requests if request.key not in replies])
    with partial.open("ab") as file, bar(title, len(requests), len(replies)) as progress:
        run = _Run(endpoint, file, replies, progress, fault_of or (lambda text, cut: ""))
        asyncio.run(run.ask(waiting))
    return replies


class _Run:
    """What the workers of one call share."""

    def __init__(
        self,
        endpoint: EndpointCard,
        file: BinaryIO,
        replies: dict[Key, dict[str, Any]],
        progress: Any,
        fault_of: Callable[[str, bool], str],
    ):
        self.endpoint, self.file, self.replies, self.progress = endpoint, file, replies, progress
        self.fault_of = fault_of
        self.key = secret_of(endpoint)
        self.in_a_row = 0

    async def ask(self, waiting: Iterator[Request]) -> None:
        client = _client(self.endpoint, self.key)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.endpoint.concurrency):
                    group.create_task(self._work(client, waiting))
        except* MedkitError as errors:
            raise errors.exceptions[0] from None
        finally:
            await client.close()

    async def _work(self, client: Any, waiting: Iterator[Request]) -> None:
        for request in waiting:
            reply = await self._settle(client, request)
            append_replies(self.file, [reply])
            self.replies[request.key] = reply
            self.progress.advance(1)
            self.in_a_row = self.in_a_row + 1 if "failed" in reply else 0
            if self.in_a_row >= self.endpoint.give_up_after:
                raise ModelError(
                    f"{self.endpoint.url}: {self.in_a_row} questions failed one after another, the last with "
                    f"'{reply['failed']}'; look at the endpoint, then run again with --retry-failed"
                )

    async def _settle(self, client: Any, request: Request) -> dict[str, Any]:
        """Tries a request until it has a reply that counts, or no try is left."""
        messages = request.messages()
        rejected: list[str] = []
        failure, tries, seconds = Failure("not asked", False), 0, 0.0
        while tries < self.endpoint.tries:
            tries += 1
            start = time.perf_counter()
            try:
                said = await self._try(client, messages, request.most_tokens)
                return self._row(request, rejected, tries, time.perf_counter() - start) | said
            except Failure as found:
                failure, seconds = found, time.perf_counter() - start
            if failure.raw is not None:
                rejected.append(self._without_key(failure.raw))
            if not failure.again:
                break
            if tries < self.endpoint.tries:
                pause = self.endpoint.wait_s * 2 ** (tries - 1) * random.uniform(0.5, 1.0)
                await asyncio.sleep(min(max(pause, failure.wait_s or 0.0), LONGEST_WAIT_S))
        return self._row(request, rejected, tries, seconds) | {"failed": failure.reason}

    async def _try(self, client: Any, messages: list[dict[str, Any]], most_tokens: int) -> dict[str, Any]:
        import httpx2
        import openai

        asked = {"model": self.endpoint.model, "messages": messages, "temperature": 0}
        try:
            # The bytes, not the client's object: it takes a reply with fields missing or of another type.
            raw = await asyncio.wait_for(
                client.chat.completions.with_raw_response.create(
                    **asked, **{self.endpoint.token_field: most_tokens}
                ),
                self.endpoint.timeout_s,  # the client's own limit is of silence, not of the whole reply
            )
            body = raw.http_response.content
        except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException):
            raise Failure("timeout", True) from None
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except (openai.APIConnectionError, httpx2.TransportError, httpx2.DecodingError):
            raise Failure("connection lost", True) from None
        if raw.http_response.status_code != 200:
            raise Failure(f"HTTP {raw.http_response.status_code}", True)
        said = read_reply(body, self.endpoint)
        said["answer"] = self._without_key(said["answer"])
        fault = self.fault_of(said["answer"], said["truncated"])
        if fault:
            raise Failure(fault, True, raw=said["answer"])
        return said

    def _status_failure(self, error: Any) -> Failure:
        status = error.status_code
        if status in SETTINGS_ARE_WRONG:
            key = "" if self.key else f"; ${self.endpoint.key_variable} holds no key"
            raise ModelError(
                f"{self.endpoint.url} {SETTINGS_ARE_WRONG[status]} (HTTP {status}, model "
                f"{self.endpoint.model}){key if status != 404 else ''}"
            ) from None
        return Failure(f"HTTP {status}", status in AGAIN or status >= 500, _told_wait(error.response.headers))

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "[key]") if self.key else text

    def _row(self, request: Request, rejected: list[str], tries: int, seconds: float) -> dict[str, Any]:
        benchmark, control, name = request.key
        return {
            "benchmark": benchmark, "control": control, "id": name, "prompt": request.prompt, "answer": "",
            "truncated": False, "latency_s": round(seconds, 6), "tries": tries, "served_by": "",
            "rejected": rejected,
        }  # fmt: skip


def read_reply(body: bytes, endpoint: EndpointCard) -> dict[str, Any]:
    """Gives ``{answer, truncated, served_by}`` of a chat completion.

    Raises:
        Failure: The body is not a whole reply of the model that was asked.
    """
    try:
        reply = json.loads(body, parse_constant=_no_constant)
    except ValueError:
        raise Failure("broken JSON", True) from None
    if not isinstance(reply, dict) or reply.get("error"):
        raise Failure("error in place of a reply", True)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Failure("no choices", True)
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise Failure("no message", True)
    if finish == "content_filter" or message.get("refusal"):
        raise Failure("refused", False)
    if finish not in ("stop", "length"):
        raise Failure("no end of the reply", True)
    text = message.get("content")
    if not isinstance(text, str) or not _is_storable(text):
        raise Failure("no text", True)
    served_by = reply.get("model")
    if not isinstance(served_by, str) or not _is_asked(served_by, endpoint):
        raise Failure("another model answered", False)
    return {"answer": text.strip(), "truncated": finish == "length", "served_by": served_by}


def about_endpoint(endpoint: EndpointCard, replies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Gives how replies came about, for ``scores.json``; the key is no part of it."""
    reasons: dict[str, int] = {}
    for reply in replies:
        if "failed" in reply:
            reasons[reply["failed"]] = reasons.get(reply["failed"], 0) + 1
    return {
        "method": "greedy",
        "endpoint": endpoint.url,
        "model": endpoint.model,
        "served_by": sorted({reply["served_by"] for reply in replies if reply.get("served_by")}),
        "failed": dict(sorted(reasons.items())),
        "tries": sum(reply.get("tries", 1) for reply in replies),
    }


def _client(endpoint: EndpointCard, key: str) -> Any:
    if importlib.util.find_spec("openai") is None:
        raise MedkitError("an endpoint needs the openai package: pip install 'medkit-lmm[endpoint]'")
    import httpx2
    import openai

    http = httpx2.AsyncClient(
        # A proxy of the environment must not see what goes to a machine of one's own; a redirect would take
        # pictures and key to another address.
        trust_env=not is_near(urlsplit(endpoint.url).hostname or ""),
        follow_redirects=False,
        timeout=endpoint.timeout_s,
        limits=httpx2.Limits(max_connections=endpoint.concurrency),
    )
    # Empty, not left out: what is left out the client takes from the environment and sends.
    return openai.AsyncOpenAI(
        base_url=endpoint.url,
        api_key=key or "none",
        organization="",
        project="",
        max_retries=0,
        http_client=http,
    )


def _is_asked(served_by: str, endpoint: EndpointCard) -> bool:
    wanted = endpoint.answers_as or endpoint.model
    dated = served_by.removeprefix(f"{wanted}-").replace("-", "")
    has_date = served_by.startswith(f"{wanted}-") and dated.isdigit() and len(dated) in (4, 6, 8)
    return wanted == "any" or served_by == wanted or (not endpoint.answers_as and has_date)


def _is_storable(text: str) -> bool:
    """Says whether a text is Unicode: JSON can spell half a character, which no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _told_wait(headers: Any) -> float | None:
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(name)
