"""The licence a person chooses for a dataset, as the hub, SPDX and Croissant name it."""

from __future__ import annotations

import re
from types import MappingProxyType

from scenes.errors import InputError, closest

# SPDX identifier: the hub's identifier (https://huggingface.co/docs/hub/repositories-licenses)
HUB_LICENCES = MappingProxyType(
    {
        "CC0-1.0": "cc0-1.0",
        "CC-BY-4.0": "cc-by-4.0",
        "CC-BY-SA-4.0": "cc-by-sa-4.0",
        "CC-BY-NC-4.0": "cc-by-nc-4.0",
        "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
        "CC-BY-ND-4.0": "cc-by-nd-4.0",
        "CC-BY-NC-ND-4.0": "cc-by-nc-nd-4.0",
        "PDDL-1.0": "pddl",
        "ODC-By-1.0": "odc-by",
        "ODbL-1.0": "odbl",
        "CDLA-Permissive-2.0": "cdla-permissive-2.0",
        "Apache-2.0": "apache-2.0",
        "MIT": "mit",
        "GPL-3.0-or-later": "gpl-3.0",
    }
)
_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]{1,60}")


def check_licence(name: str) -> str:
    """Return an SPDX identifier in its own spelling; raises InputError for one that is not known.

    A licence of one's own is written `LicenseRef-NAME`, as SPDX has it.
    """
    spelling = {known.lower(): known for known in HUB_LICENCES}.get(name.lower())
    if spelling is None and _OWN.fullmatch(name):
        return name
    if spelling is None:
        raise InputError(
            f"licence '{name}' is not known{closest(name, HUB_LICENCES)}; "
            f"allowed: {', '.join(HUB_LICENCES)}, or LicenseRef-NAME for one of your own"
        )
    return spelling


def hub_licence(name: str | None) -> dict[str, str]:
    """Return the card's front-matter keys for a licence; `unknown` where none was chosen."""
    if name is None:
        return {"license": "unknown"}
    known = HUB_LICENCES.get(name)
    return {"license": known} if known else {"license": "other", "license_name": name.removeprefix("LicenseRef-").lower()}


def licence_url(name: str) -> str:
    """Return the page of an SPDX licence, or the bare reference of one's own."""
    return f"https://spdx.org/licenses/{name}" if name in HUB_LICENCES else name
