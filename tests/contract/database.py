"""The one contract that every database of `lgi.db` keeps."""

from __future__ import annotations

from tests.contract.agenda import AgendaContract
from tests.contract.claims import ClaimsContract
from tests.contract.counts import CountsContract
from tests.contract.grants import GrantsContract
from tests.contract.jobs import JobsContract
from tests.contract.keys import KeysContract
from tests.contract.locks import LocksContract
from tests.contract.pulses import PulsesContract
from tests.contract.together import TogetherContract
from tests.contract.transactions import TransactionsContract
from tests.contract.usage import UsageContract
from tests.contract.values import ValuesContract


class DatabaseContract(
    JobsContract,
    CountsContract,
    KeysContract,
    LocksContract,
    ClaimsContract,
    GrantsContract,
    UsageContract,
    ValuesContract,
    AgendaContract,
    PulsesContract,
    TogetherContract,
    TransactionsContract,
):
    """All of the contract; a subclass says with `make_database` on which database it is tested."""
