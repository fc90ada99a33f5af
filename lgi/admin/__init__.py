"""What the administrator of a project does: set it up, issue certificates, register resources."""
