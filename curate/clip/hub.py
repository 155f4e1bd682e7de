"""One short question to a model hub, before its client is allowed its minute of retries."""

from __future__ import annotations

from curate.network import why_not_url


def why_not(repository: str, file: str) -> str:
    """Why a file of a repository cannot be fetched from the hub; empty when it can.

    Sends one request for the headers, at most.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and it is not in the cache"
    url = f"{constants.ENDPOINT}/{repository}/resolve/main/{file}"
    token = get_token()
    why = why_not_url(url, {"Authorization": f"Bearer {token}"} if token else {})
    return f"{why}: `hf auth login`" if why.endswith("wants a login") else why
