"""An exported folder on the Hugging Face hub."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from tinymim.errors import TinymimError

SECONDS = 5  # until a hub that does not answer counts as out of reach


class Hub:
    """A repository ``OWNER/NAME`` or ``NAME`` to push to, checked before anything is written; a new one is seen by all
    but where ``private``.

    Raises:
        TinymimError: a name the hub does not take, no login, or no network.
    """

    def __init__(self, repo: str, private: bool = False):
        import huggingface_hub
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise TinymimError(f"push: {str(error).splitlines()[0]}") from None
        if not huggingface_hub.get_token():
            raise TinymimError("push: no login to the Hugging Face hub; `hf auth login`, or set $HF_TOKEN")
        self.repo, self.private = repo, private
        self.api = huggingface_hub.HfApi()
        from huggingface_hub import constants

        later = f"export without --push, and later `hf upload {repo} FOLDER`"
        if constants.HF_HUB_OFFLINE:
            raise TinymimError(f"push: $HF_HUB_OFFLINE is set; unset it, or {later}")
        try:
            urllib.request.urlopen(urllib.request.Request(self.api.endpoint, method="HEAD"), timeout=SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it answered
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise TinymimError(f"push: {self.api.endpoint} cannot be reached ({reason}); {later}") from None

    def push(self, folder: Path) -> str:
        """Upload ``folder`` and give back its address.

        Raises:
            TinymimError: the hub refuses; the folder stays.
        """
        try:
            made = self.api.create_repo(self.repo, private=self.private or None, exist_ok=True)
            self.api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Export of tinymim")
        except Exception as error:  # of the hub, of its HTTP library or of the network: their types differ by version
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise TinymimError(
                f"push: {self.repo}: {reason}; the export is in {folder}: `hf upload {self.repo} {folder}` tries again"
            ) from None
        return str(made)
