# The types of what is loaded by name when it is used.
from lgi.api.aio import AsyncClient as AsyncClient
from lgi.api.aio import AsyncJob as AsyncJob
from lgi.api.client import Client as Client
from lgi.api.client import Job as Job
from lgi.api.errors import ClientClosed as ClientClosed
from lgi.api.errors import JobFailed as JobFailed
from lgi.api.errors import NoReactor as NoReactor
from lgi.api.executor import Executor as Executor
from lgi.api.executor import GridFuture as GridFuture
from lgi.api.values import Me as Me
from lgi.client.answers import AnswerMalformed as AnswerMalformed
from lgi.client.answers import ServerRefused as ServerRefused
from lgi.client.answers import ServerUnreachable as ServerUnreachable
from lgi.client.grid import SubmissionUnknown as SubmissionUnknown
from lgi.client.reference import UnknownReference as UnknownReference
from lgi.client.settings import SettingsError as SettingsError
from lgi.states import JobState as JobState

__version__: str
