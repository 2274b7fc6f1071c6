"""The kinds of evidence of a build: one file each, with a class ``Attestor``; others by ``medfed.attestation``."""
