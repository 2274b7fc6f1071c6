"""What an attacker can learn of the training rows: attacks on updates and on models, one file each."""
