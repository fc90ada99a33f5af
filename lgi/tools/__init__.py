"""The programs that the LGI document names for users and for job scripts, by their old names, options and output."""
