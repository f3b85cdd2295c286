"""Translate errors of the hub's library into ours, with reason and remedy."""

import errno
import os
from json import JSONDecodeError

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import ModelError, RequestError, StreamingT2VError

FAILURES = (HTTPError, OSError, ValueError)
"""Errors of hub queries and downloads: the library's, its HTTP client's, the disk's, malformed answers."""


def explained(
    error: Exception, hub_id: str, revision: str | None, argument: str = "source"
) -> StreamingT2VError:
    """Return RequestError for a wrong name, revision or token, else ModelError."""
    if isinstance(error, StreamingT2VError):
        return error
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library says that it has no copy of what it could not get
    name = f"{hub_id}@{revision}" if revision else hub_id
    if remedy := _wrong(error, hub_id, revision):
        return RequestError(argument, name, remedy)
    return ModelError(f"{name}: {_failed(error)}")


def _wrong(error: Exception, hub_id: str, revision: str | None) -> str | None:
    """Return the mistake in the request and its remedy; None if the request is not at fault."""
    page = f"{constants.ENDPOINT}/{hub_id}"
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    message = (response.headers.get("X-Error-Message") or "") if response is not None else ""
    if isinstance(error, GatedRepoError):
        return _gated(page)
    if status == 401 and "Invalid credentials" in message:
        return (
            f"{_token_place()} is not valid at {constants.ENDPOINT}: make "
            f"a new one at {_tokens_page()}, or unset it"
        )
    if isinstance(error, RepositoryNotFoundError):
        hidden = (
            "or your token may not read it"
            if get_token()
            else f"or it is private: then set HF_TOKEN to a token from {_tokens_page()}"
        )
        return f"no such repository at {constants.ENDPOINT}: check its spelling, {hidden}"
    if isinstance(error, RevisionNotFoundError):
        return f"there is no revision {revision!r}; {_revisions(hub_id)}"
    if isinstance(error, DisabledRepoError):
        return f"the hub has disabled it; see {page}"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"a file is missing there; see {page}/tree/{revision or 'main'}"
    if status in (401, 403):
        return (
            f"the hub refuses it ({message or status}): set HF_TOKEN to a "
            f"token from {_tokens_page()} that may read it"
        )
    if isinstance(error, HFValidationError):
        return "is not a hub id; write OWNER/REPOSITORY"
    return None


def _gated(page: str) -> str:
    first = f"it is gated: log in, accept its licence at {page}"
    if get_token():
        return (
            f"{first} with the account of the token you use ({_token_place()}), "
            "and let that token read gated repositories"
        )
    return f"{first}, then set HF_TOKEN to a token from {_tokens_page()}"


def _failed(error: Exception) -> str:
    """Return the reason of the failure and its remedy."""
    where = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return (
            "it is not on this machine in whole, and HF_HUB_OFFLINE=1 keeps "
            "this process off the network; unset it to download"
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        later = (
            "too many requests: wait some minutes, or set HF_TOKEN" if status == 429 else "try again later"
        )
        return f"the hub at {where} returned an error ({status}); {later}. Downloaded parts are kept"
    if isinstance(error, JSONDecodeError | FileMetadataError):
        return f"{where} does not answer like a hub; check HF_ENDPOINT, proxies and network log-in pages"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of the hub cache is full ({constants.HF_HUB_CACHE}); "
            "free some space, or set HF_HOME to a folder on another disk"
        )
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
        return f"the hub cache cannot be written ({error}); set HF_HOME to a writable folder"
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    kept = "Downloaded parts are kept; repeat the command to resume"
    return (
        f"the hub at {where} cannot be reached ({reason}); check the network, proxy and HF_ENDPOINT. {kept}"
    )


def _revisions(hub_id: str) -> str:
    """List the revisions that exist, or say where to look."""
    try:
        refs = HfApi().list_repo_refs(hub_id)
    except FAILURES:
        return f"see {constants.ENDPOINT}/{hub_id}/refs"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f"there are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}, and commits"


def _token_place() -> str:
    return "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token of your last log-in"


def _tokens_page() -> str:
    return f"{constants.ENDPOINT}/settings/tokens"
