"""A resource's ready directory: certificate, example applications and `LGI.cfg` for the resource daemon."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lgi.admin.folder import PRIVATE, write_text
from lgi.admin.layout import AdminError
from lgi.ca import Issued
from lgi.durable import write_atomically
from lgi.wire.dialect import element

SCRIPTS = (
    "check_system_limits_script",
    "job_check_limits_script",
    "job_check_running_script",
    "job_check_finished_script",
    "job_prologue_script",
    "job_run_script",
    "job_epilogue_script",
    "job_abort_script",
)
HELLO = "hello_world"
# Which example applications there are, and which files of theirs stand in for the scripts of hello_world.
EXAMPLES: dict[str, dict[str, str]] = {
    HELLO: {},
    "lj_md": {
        "job_prologue_script": "lj_md/job_prologue_script",
        "job_run_script": "lj_md/lj_md.py",
        "job_epilogue_script": "lj_md/job_epilogue_script",
    },
    "python_function": {
        name: f"python_function/{name}"
        for name in ("check_system_limits_script", "job_prologue_script", "job_run_script", "job_epilogue_script")
    },
}


def examples_directory() -> Path:
    """Where the example applications are: in the source tree, or where an installation puts them."""
    for place in (
        Path(__file__).resolve().parents[2] / "etc" / "applications",
        Path(sys.prefix) / "share" / "lgi" / "applications",
    ):
        if (place / HELLO).is_dir():
            return place
    raise AdminError("the example applications (etc/applications) are not installed")


def check_examples(applications: Sequence[str]) -> None:
    """Raise AdminError naming those that are no example applications."""
    unknown = [name for name in applications if name not in EXAMPLES]
    if unknown:
        known = ", ".join(EXAMPLES)
        raise AdminError(f"there is no example application {', '.join(unknown)}; there are: {known}")


def write_resource_directory(
    directory: Path,
    issued: Issued,
    *,
    authority: bytes,
    server: str,
    project: str,
    applications: Sequence[str] = (HELLO,),
) -> None:
    """Fill an existing directory; it can be moved to the resource as it is, since its paths are relative."""
    check_examples(applications)
    # Where root runs the daemon, the uids of jobs have to get through; what is secret has a mode of its own.
    directory.chmod(0o711)
    write_resource_credentials(directory, issued)
    write_text(directory / "ca.crt", authority.decode())
    (directory / "run").mkdir(mode=0o700)
    source = examples_directory()
    for name in dict.fromkeys((HELLO, *applications)):
        target = directory / "applications" / name
        shutil.copytree(source / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        for file in target.rglob("*"):
            if file.is_file() and (file.name.endswith("_script") or file.read_bytes()[:2] == b"#!"):
                file.chmod(0o755)
    write_text(directory / "LGI.cfg", daemon_config(server, project, applications))


def write_resource_credentials(directory: Path, issued: Issued) -> None:
    """Write or replace a resource's certificate and key."""
    write_atomically(directory / "resource.key", issued.key_pem, mode=PRIVATE)
    write_text(directory / "resource.crt", issued.certificate_pem.decode())


def daemon_config(server: str, project: str, applications: Sequence[str]) -> str:
    """The text of an `LGI.cfg` that offers example applications (LGI 1.41, Resource daemon)."""
    offered = "\n".join(_application(number, name) for number, name in enumerate(applications, start=1))
    return f"""<LGI>
  {element("ca_certificate_file", "ca.crt")}
  <resource>
    {element("resource_certificate_file", "resource.crt")}
    {element("resource_key_file", "resource.key")}
    {element("run_directory", "run")}
    <owner_allow> <any> 50 </any> </owner_allow>
    <owner_deny> </owner_deny>
    {element("job_limit", 50)}
    {element("number_of_projects", 1)}
    <project number='1'>
      {element("project_name", project)}
      {element("project_master_server", server)}
      <owner_allow> <any> 50 </any> </owner_allow>
      <owner_deny> </owner_deny>
      {element("job_limit", 50)}
      {element("number_of_applications", len(applications))}
{offered}
    </project>
  </resource>
</LGI>
"""


def _application(number: int, name: str) -> str:
    replaced = EXAMPLES[name]
    scripts = "\n".join(
        f"        {element(script, 'applications/' + replaced.get(script, f'{HELLO}/{script}'))}"
        for script in SCRIPTS
    )
    return f"""      <application number='{number}'>
        {element("application_name", name)}
        <owner_allow> <any> 50 </any> </owner_allow>
        <owner_deny> </owner_deny>
        {element("job_limit", 50)}
        {element("max_output_size", 65354)}
        <capabilities> </capabilities>
{scripts}
      </application>"""
