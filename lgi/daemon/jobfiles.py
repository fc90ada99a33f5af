"""What stands in the files of a job directory (LGI 1.41, Resource daemon)."""

from __future__ import annotations

from lgi.daemon.config import JOB_SCRIPTS, ApplicationConfig, DaemonConfig
from lgi.daemon.jobdir import LEFT_OUT
from lgi.lists import encode_list
from lgi.model import Job
from lgi.states import JobState


def described(job: Job) -> dict[str, str]:
    """The files of a job directory that hold what the server says about a job, but its state and input."""
    return {
        "LGI_owners": encode_list(job.owners),
        "LGI_read_access": encode_list(job.read_access),
        "LGI_write_access": encode_list(job.write_access),
        "LGI_target_resources": encode_list(job.target_resources),
        "LGI_job_specifics": job.job_specifics,
        "LGI_state_time_stamp": str(job.state_time_stamp),
    }


def job_files(
    config: DaemonConfig, application: ApplicationConfig, master: str, server: str, job: Job
) -> dict[str, bytes]:
    """The files of a new job's directory but its identity; raises OSError when a configured file cannot be read."""
    return {**own_files(application, master, server, job), **copied_files(config, application)}


def own_files(application: ApplicationConfig, master: str, server: str, job: Job) -> dict[str, bytes]:
    """Those that other jobs do not have; `LGI_job_sandbox_uid` is empty: no sandbox."""
    texts = {
        **described(job),
        "LGI_this_project_server": server,
        "LGI_project_master_server": master,
        "LGI_job_id": str(job.job_id),
        "LGI_state": JobState.QUEUED.value,
        "LGI_max_output_size": str(application.max_output_size),
        "LGI_job_sandbox_uid": "",
    }
    return {name: text.encode() for name, text in texts.items()}


def copied_files(config: DaemonConfig, application: ApplicationConfig) -> dict[str, bytes]:
    """What the directories of all jobs of an application have; raises OSError when one cannot be read."""
    copies = {
        "LGI_key_file": config.resource_key_file,
        "LGI_certificate_file": config.resource_certificate_file,
        "LGI_ca_certificate_file": config.ca_certificate_file,
        **{f"LGI_{tag}": path for tag, path in application.scripts.items()},
    }
    left_out = [f"LGI_{tag}" for tag in JOB_SCRIPTS if tag not in application.scripts]
    said = {LEFT_OUT: encode_list(left_out).encode()} if left_out else {}
    return {**{name: path.read_bytes() for name, path in copies.items()}, **said}
