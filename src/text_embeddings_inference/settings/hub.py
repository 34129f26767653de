"""Where models come from that are not in a folder: the Hub, and its cache."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from .options import HUB, Folder, Option, Text, Variable


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """Where models come from that are not in a folder: the Hub, and its cache."""

    hf_token: str | None = Option(
        Text(),
        HUB,
        "Token for the Hub",
        details="Without it the file `token` in HF_HOME is used, if there is one.",
        conflicts=("hf_api_token",),
        secret=True,
    ).field(None)
    hf_api_token: str | None = Option(Text(), HUB, "Deprecated: use `--hf-token`", hidden=True, secret=True).field(None)
    huggingface_hub_cache: str | PathLike[str] | None = Option(
        Folder(), HUB, "Folder of the Hub cache", default_text="$HF_HOME/hub", before="HF_HUB_CACHE"
    ).field(None)
    hf_home: str | PathLike[str] = Variable(
        "HF_HOME",
        "Folder of the Hub's cache and token. [default: $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface]",
        types=(str, PathLike),
        others=(("XDG_CACHE_HOME", lambda folder: f"{folder}/huggingface"),),
    ).field("~/.cache/huggingface")
    hf_endpoint: str = Variable("HF_ENDPOINT", "Address of the Hub. [default: https://huggingface.co]").field(
        "https://huggingface.co"
    )
    hf_hub_user_agent_origin: str | None = Variable(
        "HF_HUB_USER_AGENT_ORIGIN", "Told to the Hub as the origin of requests."
    ).field(None)
    hf_hub_offline: bool = Variable(
        "HF_HUB_OFFLINE",
        "1, true, yes or on: use what the Hub cache holds, without any network. [default: TRANSFORMERS_OFFLINE]",
        parse=_is_true,
        types=(bool,),
        others=(("TRANSFORMERS_OFFLINE", _is_true),),
    ).field(False)

    @property
    def token(self) -> str | None:
        """The Hub token, whichever option it came by."""
        token = self.hf_api_token if self.hf_token is None else self.hf_token
        return token if token is None else token.strip()  # as the Hub's own client takes it
