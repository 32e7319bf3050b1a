"""The options of the mDNS registry."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class MdnsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How services are announced and looked for. The defaults are Go Micro's where it has such a setting.

    Attributes:
        domain: the DNS domain all names lie in; peers must use the same one.
        interfaces: names or addresses of the network interfaces to use; empty for all of them.
        query_timeout: seconds that a lookup waits for the first answer. It asks again after half of that, and takes
            further answers for as long again at most.
        refresh: seconds between the questions of a watch; they are spread by a tenth.
        expiry: how many such questions in a row a node may leave unanswered before a watch drops it.
    """

    domain: Annotated[str, option("DNS domain that services are announced in.", min_length=1)] = "micro"
    interfaces: Annotated[tuple[str, ...], option("Network interfaces to use, by name or address; none for all.")] = ()
    query_timeout: Annotated[float, option("How long a lookup waits for the first answer.", unit="seconds", gt=0)] = (
        0.25
    )
    refresh: Annotated[float, option("How often a watch asks again.", unit="seconds", gt=0)] = 10.0
    expiry: Annotated[int, option("Unanswered questions in a row after which a watch drops a node.", ge=1)] = 3
