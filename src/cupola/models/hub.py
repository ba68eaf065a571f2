"""Networks on the Hugging Face hub: the two files that cupola writes, and a README.md.

`PretrainedNetwork.from_pretrained("user/name")` fetches one, and
`PretrainedNetwork(network, card).push_to_hub("user/name")` puts one there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cupola.errors import CheckpointError, DownloadError
from cupola.io import write_text
from cupola.models.checkpoint import CARD, WEIGHTS, load_network, save_network
from cupola.models.interface import PanopticModel
from cupola.models.model_card import model_card_text

README = "README.md"


class PretrainedNetwork(ModelHubMixin):
    """A network and its card, as a directory or a repository of the hub holds them.

    network: any network of cupola; card: what `cupola.models.save_network` takes. `save_pretrained(directory)`,
    `push_to_hub("user/name")` and their options are those of `huggingface_hub.ModelHubMixin`.
    """

    def __init__(self, network: PanopticModel, card: dict[str, Any]) -> None:
        self.network = network
        self.card = card
        self._hub_mixin_config = None  # model.json says it all; the mixin would write a config.json beside it

    def _save_pretrained(self, save_directory: Path) -> None:
        save_network(save_directory, self.network, self.card)
        text = model_card_text(self.card, self.network.num_things, self.network.num_stuff)
        write_text(save_directory / README, text)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> PretrainedNetwork:
        """The network of a directory or a repository, on the CPU, in evaluation mode.

        A repository that was fetched before loads without a connection. (The mixin's own way wants a config.json, which
        fails where there is no connection.)

        Raises:
            DownloadError: there is no such repository or revision, or no connection.
            CheckpointError: it holds no network of cupola, or a damaged one.
        """
        if model_kwargs:
            raise TypeError(f"a network is told by its model.json alone, so it takes no {', '.join(model_kwargs)}")
        directory = Path(pretrained_model_name_or_path)
        if not directory.is_dir():
            repository = str(pretrained_model_name_or_path)
            directory = _snapshot(
                repository,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                token=token,
                local_files_only=local_files_only,
            )
            if not (directory / CARD).is_file():
                raise CheckpointError(
                    f"the Hugging Face repository {repository} holds no {CARD}, so it is no network of cupola"
                )
        return cls(*load_network(directory))


def _snapshot(repository: str, **options: Any) -> Path:
    """The two files of a repository in the hub's cache. Raises `DownloadError`."""
    try:
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS, CARD], **options))
    except GatedRepoError as error:
        raise DownloadError(
            f"the Hugging Face repository {repository} is only for those who asked: accept its terms on its page, then "
            "`hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DownloadError(
            f"there is no Hugging Face repository {repository} (or it is private, and `hf auth login` is missing)"
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(
            f"the Hugging Face repository {repository} has no revision {options['revision']}"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise DownloadError(
            f"the Hugging Face hub cannot be reached and {repository} was not fetched before; copy "
            f"https://huggingface.co/{repository} here from another machine and give its folder"
        ) from error
