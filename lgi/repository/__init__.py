"""File repositories of jobs (LGI 1.41, Repositories): where files are, who may change them, HTTP."""
