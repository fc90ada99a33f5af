"""HTTP as this project serves it: requests with limits, bodies on disk, identities from certificates, one router."""
