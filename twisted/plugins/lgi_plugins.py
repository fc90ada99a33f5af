"""The programs that twistd finds."""

from twisted.application.service import ServiceMaker

lgi_server = ServiceMaker("LGI project server", "lgi.server.tap", "LGI: the project server", "lgi-server")
lgi_scheduler = ServiceMaker("LGI scheduler", "lgi.scheduler.tap", "LGI: the project's scheduler", "lgi-scheduler")
lgi_daemon = ServiceMaker("LGI resource daemon", "lgi.daemon.tap", "LGI: the resource daemon", "lgi-daemon")
