"""The wire as deployed programs speak it: encode and decode, no I/O."""
